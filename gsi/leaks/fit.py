"""Fits the weights of `gsi.leaks.mentions`: `python -m gsi.leaks.fit TABLE... --clean TABLE... --data FOLDER`.

A table has JSON lines: response, leak (mention, none, ...), span (the words of a mention, exactly as in the response) and question, or
instead of it `query`, the id of a question of a data folder. Windows with most of a span are positive, those of responses without a mention negative, and
so are right everyday responses of tables of graded cases (--clean) and the folder's own worked solutions, which nobody helped. Every third of these solutions is kept out of the fit: the threshold is where
`--alarms` of them would be taken for mentions. Prints, for each table, what a fit without it finds in it; then fits on all and writes the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsi.leaks.mentions import WEIGHTS, Model, features, plain_quotes, topics, windows
from gsi.types import GsiError, Query
from gsi.verify import compare, remainder

FILES = ("gsm8k_full", "math_full", "aqua_cot")  # worked solutions by people
Features = Set[str]


@dataclass(frozen=True)
class Settings:
    decay: float = 30.0  # L2 penalty
    positive: float = 10.0  # weight of a window with a mention
    hard: float = 3.0  # and of one in a table's other solutions, which were written to be hard to tell apart; of people's solutions 1
    rare: int = 2  # windows that a feature of a mention has to be in
    plain: int = 20  # and one that no mention has
    most: float = 0.7  # share of a span that a window has to hold, or of a window that the span has to
    least: float = 0.05  # smallest weight that is kept


@dataclass(frozen=True)
class Solution:
    """One response, window by window: features, and whether it gives the help away (None: not known)."""

    leak: str  # people: a worked solution of a data folder
    windows: list[tuple[Features, bool | None]]


def read(path: Path, questions: Mapping[str, Query], settings: Settings = Settings()) -> list[Solution]:
    """Raises GsiError for a span that is not in its response."""
    found = []
    for number, row in enumerate(map(json.loads, path.read_text(encoding="utf-8").splitlines()), 1):
        question = row["question"] if "question" in row else questions[row["query"]].question
        span = row.get("span", "")
        if span not in row["response"]:
            raise GsiError(f"{path}:{number}: the span is not in the response")
        found.append(solution(row["response"], question, row["leak"], span, settings.most))
    return found


def read_clean(path: Path, data: Path) -> list[Solution]:
    """The right everyday responses of a table of graded cases."""
    return [
        solution(c.response, c.question, "none")
        for c in compare.read(path, data)
        if (c.kind, c.expected) == ("everyday", "correct") and c.question
    ]


def solution(response: str, question: str, leak: str = "people", span: str = "", most: float = 1.0) -> Solution:
    asked, text = topics(question), plain_quotes(response)
    parts: list[tuple[Features, bool | None]] = []
    begin, end, at = response.find(span), response.find(span) + len(span), 0
    for part in windows(response):
        # windows of one sentence overlap: the next begins behind the beginning of the last
        at = text.find(part, at)
        shared = min(end, at + len(part)) - max(begin, at)
        mark = bool(span) and shared >= most * min(len(span), len(part))
        parts.append((features(part, asked), True if mark else None if leak == "mention" else False))
    return Solution(leak, parts)


def fit(solutions: Iterable[Solution], settings: Settings = Settings()) -> Model:
    """Logistic regression by L-BFGS, features scaled by their log-count ratio (Wang and Manning, ACL 2012); the threshold is left at 0."""
    import torch

    cases = [(f, y, s.leak) for s in solutions for f, y in s.windows if y is not None]
    given, plain = Counter(g for f, y, _ in cases if y for g in f), Counter(g for f, y, _ in cases if not y for g in f)
    positive, negative = sum(bool(y) for _, y, _ in cases) + 1, sum(not y for _, y, _ in cases) + 1
    kept = sorted({g for g, n in given.items() if n + plain[g] >= settings.rare} | {g for g, n in plain.items() if n >= settings.plain})
    place = {g: i for i, g in enumerate(kept)}
    ratio = [abs(math.log((given[g] + 0.5) / positive) - math.log((plain[g] + 0.5) / negative)) for g in kept]
    rows = [[place[g] for g in sorted(f) if g in place] for f, _, _ in cases]
    flat = torch.tensor([i for row in rows for i in row])
    starts = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)
    labels = torch.tensor([float(bool(y)) for _, y, _ in cases])
    counted = torch.tensor([settings.positive if y else 1.0 if leak == "people" else settings.hard for _, y, leak in cases])
    scale = torch.tensor(ratio)[:, None]
    weights, bias = torch.zeros(len(kept), 1, requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        logits = torch.nn.functional.embedding_bag(flat, weights * scale, starts, mode="sum").squeeze(1) + bias
        errors = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, weight=counted, reduction="sum")
        total = errors + settings.decay * weights.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    scaled = (weights * scale).squeeze(1).tolist()
    return Model({g: round(w, 2) for g, w in zip(kept, scaled, strict=True) if abs(w) >= settings.least}, round(bias.item(), 2), 0.0)


def score(fitted: Model, s: Solution) -> float:
    """The highest of the windows' sums."""
    return max((fitted.score(f) for f, _ in s.windows), default=fitted.bias)


def threshold(fitted: Model, clean: Sequence[Solution], alarms: float) -> float:
    """The lowest at which at most a share `alarms` of the clean solutions lies above it."""
    scores = sorted((score(fitted, s) for s in clean), reverse=True)
    return round(scores[int(alarms * len(scores))], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--clean", type=Path, nargs="*", default=[], help="tables of graded cases")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.jsonl.gz")
    parser.add_argument("--alarms", type=float, default=0.02, help="share of people's own solutions that may be taken for mentions")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    parser.add_argument("--no-check", action="store_true", help="do not fit without each table first")
    args = parser.parse_args()
    questions = compare.questions(args.data)
    solved = (row for row in remainder.rows(args.data, ["rationale"]) if Path(row.file).name.split(".")[0] in FILES)
    people = [solution(row.response, row.query.question) for row in solved]
    kept_out = people[::3]
    fitted_on = [s for i, s in enumerate(people) if i % 3] + [s for path in args.clean for s in read_clean(path, args.data)]
    tables = {path: read(path, questions) for path in args.tables}
    for path, cases in [] if args.no_check else tables.items():
        model = fit([*(s for p, t in tables.items() if p != path for s in t), *fitted_on])
        limit = threshold(model, kept_out, args.alarms)
        over = Counter(s.leak for s in cases if score(model, s) > limit)
        there = Counter(s.leak for s in cases)
        print(f"{path.name}, fitted without it: " + ", ".join(f"{leak} {over[leak]} of {n}" for leak, n in sorted(there.items())))
    model = fit([*(s for t in tables.values() for s in t), *fitted_on])
    limit = threshold(model, kept_out, args.alarms)
    made_of = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in args.tables}
    stored = {"made_of": made_of, "bias": model.bias, "threshold": limit, "weights": model.weights}
    args.output.write_text(json.dumps(stored, indent=0, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{args.output}: {len(model.weights)} weights, threshold {limit}")


if __name__ == "__main__":
    main()

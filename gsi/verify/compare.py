"""Our checker beside math-verify called directly, on tables of cases: `python -m gsi.verify.compare tests/grading_cases.jsonl`.

A case is a JSON line: task, kind (everyday, harder, adversarial), answer, response, expected (correct or not_correct), and
optionally question and options, or instead of both `query`, the id of a question of a data folder (--data), whose text is not
ours to copy; without the folder such cases are left out. Right answers are also graded against the other answers of their
task, which they do not state: those pairs are the crossed ones, all wrong, and count only as wrongly accepted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gsi.types import GsiError, Query
from gsi.verify import CHECKERS, make_grader, remainder

KINDS = ("everyday", "harder", "adversarial")


@dataclass(frozen=True)
class Case:
    task: str
    kind: str
    answer: str
    response: str
    expected: str  # correct | not_correct
    question: str = ""
    options: tuple[str, ...] | None = None
    marked: bool = False  # only a marked answer counts

    def query(self) -> Query:
        return Query("case", self.task, self.question, self.answer, options=self.options, marked=self.marked)


@cache
def questions(data: Path) -> dict[str, Query]:
    """The questions of a data folder by their ids."""
    return {row.query.id: row.query for row in remainder.rows(data, ["answer"])}


def read(path: Path, data: Path | None) -> list[Case]:
    """The cases of a table; without a data folder those that bring their question. Raises GsiError for an id that the folder lacks."""
    cases = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (name := row.pop("query", None)) is not None:
            if data is None:
                continue
            if name not in (there := questions(data)):
                raise GsiError(f"{path}: {name} is no question of {data}; name the folder that the table was made with")
            row |= {"question": there[name].question, "options": there[name].options}
        cases.append(Case(**{**row, "options": tuple(row["options"]) if row.get("options") else None}))
    return cases


def crossed(cases: Sequence[Case], most: int = 12) -> Iterator[Case]:
    """Right responses with another answer of the same question, or the same task where that has no options, as their reference."""
    right = [c for c in cases if c.expected == "correct"]
    answers: dict[str, list[str]] = defaultdict(list)
    for c in cases:
        if c.answer not in answers[c.task]:
            answers[c.task].append(c.answer)
    for i, c in enumerate(right):
        others = [chr(65 + k) for k in range(len(c.options))] if c.options else answers[c.task]
        others = [a for a in others if _bare(a) != _bare(c.answer) and not (c.options and a == c.answer.upper())]
        start = i % max(1, len(others))
        for other in (others[start:] + others[:start])[:most]:
            yield replace(c, answer=other, expected="not_correct")


def _bare(answer: str) -> str:
    """Answers that may be the same value have the same bare form: dress, units, names and brackets off."""
    answer = re.sub(r"(?<=\d)\\text\{.*?\}|(?<=\d)\s*cm|^[a-z]=|\\text|\.0$", "", answer)
    return re.sub(r"[^\w/.+\-\\]", "", answer)


def ours(cases: Sequence[Case]) -> list[str]:
    grader = make_grader(dict.fromkeys(CHECKERS), workers=1, timeout=5.0, steps=False)
    try:
        futures = [grader.submit(c.query(), c.response) for c in cases]
        return [f.result().status for f in futures]
    finally:
        grader.close()


def math_verify(cases: Sequence[Case]) -> list[str]:
    """`parse` of both sides and `verify`, with the letters A to E, true and false as strings, as its documentation has it."""
    import logging

    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)  # it reports every timeout
    numbers = [LatexExtractionConfig(), ExprExtractionConfig()]
    words = [StringExtractionConfig(strings=("A", "B", "C", "D", "E", "true", "false", "yes", "no"))]

    def one(c: Case) -> str:
        as_words = bool(c.options) or c.answer.lower() in ("true", "false", "(a)", "(b)", "(c)")
        config = words if as_words else numbers
        gold = parse(c.answer.strip("()") if as_words else f"${c.answer}$", extraction_config=config)
        return "correct" if verify(gold, parse(c.response, extraction_config=config)) else "wrong"

    try:
        return [one(c) for c in cases]
    finally:
        logging.disable(logging.NOTSET)


def table(cases: Sequence[Case], got: Sequence[str]) -> list[tuple[str, int, float, int, int]]:
    """(kind, cases, share right, wrongly accepted, wrong ones) for every kind and all together."""
    rows = []
    for kind in (*KINDS, "all"):
        pairs = [(c, g) for c, g in zip(cases, got, strict=True) if kind in (c.kind, "all")]
        right = sum((g == "correct") == (c.expected == "correct") for c, g in pairs)
        wrong = [g for c, g in pairs if c.expected != "correct"]
        rows.append((kind, len(pairs), right / max(1, len(pairs)), sum(g == "correct" for g in wrong), len(wrong)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "cases", type=Path, nargs="*", default=[Path("tests/grading_cases.jsonl")], help="tables; several are counted together"
    )
    parser.add_argument("--failures", action="store_true", help="list the cases that ours gets wrong")
    parser.add_argument("--only-ours", action="store_true", help="leave math-verify out")
    parser.add_argument("--marked", action="store_true", help="ours accepts marked answers only (`tasks[].marked`)")
    parser.add_argument("--data", type=Path, default=os.environ.get("GSI_DATA"), help="folder with the questions that cases name by id")
    args = parser.parse_args()
    cases = [replace(c, marked=args.marked) for path in args.cases for c in read(path, args.data)]
    if args.data is None and (left := sum('"query":' in line for path in args.cases for line in path.open(encoding="utf-8"))):
        print(f"{left} cases left out: they name questions of a data folder; give --data")
    more = list(crossed(cases))
    checkers: dict[str, Callable[[Sequence[Case]], list[str]]] = (
        {"ours": ours} if args.only_ours else {"ours": ours, "math-verify": math_verify}
    )
    for name, checker in checkers.items():
        got, got_crossed = checker(cases), checker(more)
        for kind, n, right, accepted, wrong in table(cases, got):
            print(f"{name:12} {kind:12} {n:5} cases {100 * right:6.1f} % right, wrongly accepted {accepted} of {wrong}")
        for kind in KINDS:
            these = [g for c, g in zip(more, got_crossed, strict=True) if c.kind == kind]
            print(f"{name:12} {kind:12} crossed: wrongly accepted {sum(g == 'correct' for g in these)} of {len(these)}")
        if args.failures and name == "ours":
            for c, g in [*zip(cases, got, strict=True), *((c, g) for c, g in zip(more, got_crossed, strict=True) if g == "correct")]:
                if (g == "correct") != (c.expected == "correct"):
                    print(f"  {c.task} {c.kind}: {c.answer!r} is {c.expected}, we say {g}: {c.response[-160:]!r}")


if __name__ == "__main__":
    main()

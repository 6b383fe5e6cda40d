"""How much of what a run trains on is right for the right reasons: accepted rationales to read, or judged by a model.

`gsi audit RUN --n 50` lists accepted responses of the training queries, as many of each level as the others have, hardest
first. With `--judge URL --model NAME` a model behind an OpenAI-compatible URL reads each of them, and the share it finds
right is shown per level with its interval. The judge is a model too: read some of its reasons before trusting its share.

`gsi audit RUN --leaks` counts, among the rows that were trained on, those that the gate's leak filters find something in, by kind of help.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from gsi import parquet
from gsi.config.sampling import Teacher as TeacherSettings
from gsi.config.training import Gate, Leak
from gsi.gate import leak
from gsi.guidance.teacher import OpenAITeacher
from gsi.ledger import Ledger
from gsi.metrics import wilson
from gsi.seeds import seed_of
from gsi.types import SHUFFLE, GsiError, Query, Rollout, Teacher

INSTRUCTION = (
    "You check a solution that ends in the right final answer. Decide if its reasoning is right: every step follows, no step is wrong or "
    "missing so that the answer could only be reached by luck, and it answers the question that was asked. Write your reason in one or two "
    "sentences, then on the last line exactly `Verdict: right` or `Verdict: wrong`.\n\nQuestion:\n{question}\n\nSolution:\n{response}"
)


@dataclass(frozen=True)
class Item:
    """An accepted response, with the judge's word on it where there is one."""

    rollout: Rollout
    question: str = ""  # what a training row asks, where the attempt saw a hint beside it; else '': its prompt is that
    right: bool | None = None  # None = not judged, or the judge's answer names no verdict
    reason: str = ""


def choose(rollouts: Iterable[Rollout], n: int, seed: int, accept: str = "answer") -> list[Item]:
    """n accepted rollouts, the same number of each level as far as they reach, one per query before a second; hardest level first.

    The choice depends on the seed and the rows, not on their order.
    """
    by_level: dict[int | None, list[Rollout]] = defaultdict(list)
    for r in rollouts:
        if r.accepted(accept) and r.completion:  # '' = not trained on
            if r.guidance and r.guidance.startswith(SHUFFLE):
                r = replace(r, completion=r.response)  # as it was said to the options that it saw
            by_level[r.level].append(r)
    queues = {level: _by_turns(rows, seed) for level, rows in by_level.items()}
    levels = sorted(queues, key=lambda level: (level is None, -(level or 0)))
    taken: dict[int | None, list[Rollout]] = {level: [] for level in levels}
    while sum(map(len, taken.values())) < n and any(queues.values()):
        for level in levels:
            if queues[level] and sum(map(len, taken.values())) < n:
                taken[level].append(queues[level].pop())
    return [Item(r) for level in levels for r in taken[level]]


def _by_turns(rows: Sequence[Rollout], seed: int) -> list[Rollout]:
    """Drawn order, to be popped from the end: every query once before any comes twice."""
    drawn = sorted(rows, key=lambda r: seed_of(seed, "audit", r.query_id, r.iteration, r.attempt))
    turn: dict[str, int] = defaultdict(int)
    keyed = []
    for place, r in enumerate(drawn):
        turn[r.query_id] += 1
        keyed.append((turn[r.query_id], place, r))
    return [r for _, _, r in sorted(keyed, key=lambda k: k[:2], reverse=True)]


def judge(items: Sequence[Item], teacher: Teacher, workers: int = 8) -> list[Item]:
    """The items with the judge's verdicts. Raises GsiError when the judge cannot be reached."""

    def one(item: Item) -> Item:
        message = INSTRUCTION.replace("{question}", item.question or item.rollout.prompt).replace("{response}", item.rollout.completion)
        text = teacher.ask([{"role": "user", "content": message}]).text
        said = re.findall(r"verdict\W*(right|wrong)\b", text, re.IGNORECASE)
        return replace(item, right=said[-1].lower() == "right" if said else None, reason=text.strip())

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, items))


def precision(items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """Level -> right, judged, share, 95 % interval; levels apart, since each was drawn as often as it could be."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        if item.right is not None:
            groups["none" if item.rollout.level is None else str(item.rollout.level)].append(item.right)
    return {
        level: {"right": sum(v), "judged": len(v), "share": sum(v) / len(v), "interval": wilson(sum(v), len(v))}
        for level, v in groups.items()
    }


def audit(
    run: Path, n: int, seed: int = 0, judge_url: str | None = None, model: str | None = None, iteration: int | None = None
) -> tuple[list[Item], dict[str, dict[str, Any]]]:
    """(items, precision per level, empty without a judge) of a run folder; of the last iteration sampled, or the one named (from 1).

    Raises GsiError where there is no run, nothing was accepted, or the judge cannot be reached.
    """
    if bool(judge_url) != bool(model):
        raise GsiError("gsi audit: --judge URL and --model NAME go together")
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        last = ledger.query("SELECT max(iteration) FROM rollouts")[0][0]
        drawn_by = iteration - 1 if iteration is not None else last
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if (run / "config.yaml").exists() else {}
        items = choose(ledger.rows(drawn_by) if drawn_by is not None else [], n, seed, config.get("accept", "answer"))
        queries = _queries(ledger) if judge_url else {}
        items = [
            replace(item, question=queries[r.query_id].question) if (r := item.rollout).guided and r.query_id in queries else item
            for item in items
        ]
    finally:
        ledger.close()
    if not items:
        raise GsiError(f"{run}: no accepted rollouts to audit" + (f" in iteration {iteration}" if iteration is not None else ""))
    if not judge_url or not model:
        return items, {}
    teacher = OpenAITeacher(TeacherSettings(url=judge_url, model=model))
    try:
        teacher.probe()
        items = judge(items, teacher)
    finally:
        teacher.close()
    return items, precision(items)


LEAKS: tuple[Leak, ...] = get_args(Leak)


@dataclass
class Leaking:
    """Rows of one kind of help: how many, in how many each filter finds something, and in how many any does."""

    rows: int = 0
    found: Counter[str] = field(default_factory=Counter)
    any: int = 0


def leak_rates(run: Path, iteration: int | None = None) -> tuple[int, dict[str, Leaking]]:
    """(iteration, kind of help -> what leaks) of the rows that an iteration (default: the last trained) trained on; `plain` had no help to leak.

    Heuristics on text: what they find in plain rows says how often they are wrong here. Raises GsiError where no such rows are.
    """
    done = [int(path.parent.name[5:]) for path in run.glob("iter_*/train.parquet") if path.parent.name[5:].isdecimal()]
    n = max(done, default=0) if iteration is None else iteration
    if n not in done:
        raise GsiError(f"{run}: there is no iter_{n}/train.parquet, so no rows to audit" if n else f"{run}: nothing was trained on yet")
    keys: set[tuple[str, int, int]] = set()
    for batch in parquet.columns(run / f"iter_{n}" / "train.parquet", ("query_id", "iteration", "attempt")):
        keys.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    ledger, kinds = Ledger(run / "ledger.sqlite", read_only=True), defaultdict[str, Leaking](Leaking)
    try:
        queries = _queries(ledger)
        for r in ledger.rows():
            if (r.query_id, r.iteration, r.attempt) not in keys or r.query_id not in queries:
                continue  # not trained on, or a reference, which is nobody's attempt
            kind = kinds[(r.guidance or "").partition(":")[0] if r.guided else "plain"]
            found = [name for name in LEAKS if leak(r, queries[r.query_id], Gate(leaks=(name,)))]
            kind.rows += 1
            kind.found.update(found)
            kind.any += bool(found)
    finally:
        ledger.close()
    if not kinds:
        raise GsiError(f"{run}: iter_{n}/train.parquet has no attempt of the ledger, so nothing to audit")
    return n, dict(sorted(kinds.items(), key=lambda kind: (kind[0] != "plain", kind[0])))


def _queries(ledger: Ledger) -> dict[str, Query]:
    sql = "SELECT id, task, question, answer, rationale, level, options FROM queries WHERE split = 'train'"
    there = ledger.query("SELECT 1 FROM sqlite_master WHERE name = 'queries'")  # not in a ledger of an early version
    rows = ledger.query(sql) if there else []
    return {
        name: Query(name, task, question, answer, rationale, level, options and tuple(json.loads(options)))
        for name, task, question, answer, rationale, level, options in rows
    }


def show_leaks(run: Path, n: int, kinds: Mapping[str, Leaking], as_json: bool) -> str:
    """A line per kind of help and one for all of them, or one JSON line."""
    if as_json:
        return json.dumps(
            {"iteration": n, "kinds": {name: {"rows": k.rows, **{w: k.found[w] for w in LEAKS}, "any": k.any} for name, k in kinds.items()}}
        )
    lines = [
        f"{run}: leaks among the rows that iteration {n} trained on, as the gate's filters find them; plain rows had no help, so theirs are false alarms"
    ]
    guided = [k for name, k in kinds.items() if name != "plain"]
    total = Leaking(sum(k.rows for k in guided), sum((k.found for k in guided), Counter()), sum(k.any for k in guided))
    for name, k in [*kinds.items(), ("guided, all", total)]:
        if not k.rows:
            lines.append(f"{name}: no rows")
            continue
        low, high = wilson(k.any, k.rows)
        each = ", ".join(f"{w.replace('_', ' ')} {k.found[w]}" for w in LEAKS)
        lines.append(f"{name}: {k.rows} rows; {each}; any {k.any}, {k.any / k.rows:.2%} ({low:.2%} to {high:.2%})")
    return "\n".join(lines)


def show(items: Sequence[Item], shares: dict[str, dict[str, Any]], as_json: bool) -> str:
    """For reading, or one JSON line per item and one of `precision` at the end where a judge was asked."""
    if as_json:
        lines = [json.dumps(_row(item), ensure_ascii=False) for item in items]
        return "\n".join(lines + ([json.dumps({"precision": shares})] if shares else []))
    parts = []
    for number, item in enumerate(items, 1):
        r = item.rollout
        verdict = "" if item.right is None else f", judged {'right' if item.right else 'WRONG'}"
        level = "no level" if r.level is None else f"level {r.level}"
        steps = {True: ", steps hold", False: ", A STEP FAILS", None: ""}[r.steps_ok]
        head = f"=== {number} of {len(items)}: {r.query_id}, {level}, attempt {r.attempt}, {r.guidance or 'plain'}{steps}{verdict}"
        parts.append(
            "\n".join([head, r.prompt.strip(), "---", r.completion.strip(), *(["--- judge", item.reason] if item.reason else []), ""])
        )
    for level, s in shares.items():
        low, high = s["interval"]
        parts.append(f"level {level}: {s['right']} of {s['judged']} right, {s['share']:.0%} ({low:.0%} to {high:.0%})")
    if shares and (unsaid := sum(item.right is None for item in items)):
        parts.append(f"without a verdict: {unsaid}")
    return "\n".join(parts)


def _row(item: Item) -> dict[str, Any]:
    r = item.rollout
    names = ("query_id", "level", "iteration", "attempt", "guidance", "prompt", "completion", "extracted", "steps_ok")
    return {name: getattr(r, name) for name in names} | {"right": item.right, "reason": item.reason}

"""What the checker says of a data folder's own answers, rationales and programs: `python -m gsi.verify.remainder DATA_DIR`.

Every reference answer has to grade as correct against itself, every rationale and every program (`*_pot`) against its answer.
Prints one JSON line for each that does not: file, line, id, what (answer, rationale, program), status, gold, extracted, detail
and the end of the text; and to stderr how many of how many. `--known FILE` compares with a list of ids and reasons instead and
prints only what is new on either side; exit status 1 where there is any. `--steps` counts instead, for each file, the rationales
whose equations hold, do not, or cannot be checked.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gsi.types import Query, Verdict
from gsi.verify import CHECKERS, STEPS, make_grader, with_programs
from gsi.verify.steps import check_steps

WINDOW = 2000  # rows in flight


@dataclass(frozen=True)
class Row:
    """One thing to grade: `what` is answer, rationale or program."""

    file: str
    line: int
    what: str
    query: Query
    response: str


@dataclass(frozen=True)
class Failure:
    row: Row
    verdict: Verdict

    def line(self) -> dict[str, Any]:
        r, v = self.row, self.verdict
        return {"file": r.file, "line": r.line, "id": r.query.id, "what": r.what, "status": v.status, "gold": r.query.answer,
                "extracted": v.extracted, "detail": v.detail, "end": r.response[-200:]}  # fmt: skip


def rows(folder: Path, what: Sequence[str], every: int = 1) -> Iterator[Row]:
    """What the files of a data folder hold, the task by the first word of their names; every n-th row of each."""
    for path in sorted(folder.rglob("*.jsonl*")):
        name, task = path.name.split(".")[0], path.name.split(".")[0].split("_")[0]
        if task not in CHECKERS:
            continue
        programs = name.endswith("_pot")
        for line, row in islice(_lines(path), 0, None, every):
            options = tuple(row["options"]) if row.get("options") else None
            query = Query(row["id"], task, row["question"], row["answer"], row.get("rationale"), options=options)
            place = str(path.relative_to(folder))
            if "answer" in what:
                yield Row(place, line, "answer", query, f"The answer is {query.answer}")
            if query.rationale and (kind := "program" if programs else "rationale") in what:
                yield Row(place, line, kind, query, query.rationale)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, 1):
            if text.strip():
                yield number, json.loads(text)


def failures(found: Iterator[Row], workers: int, timeout: float, counts: Counter[str]) -> Iterator[Failure]:
    """Those that are not graded as correct; `counts` gets the number of each (file, what)."""
    answers = make_grader(dict.fromkeys(CHECKERS), workers, timeout, steps=False)
    programs = None
    try:
        waiting: list[tuple[Row, Future[Verdict]]] = []
        for row in found:
            counts[f"{row.file} {row.what}"] += 1
            if row.what == "program" and programs is None:
                programs = with_programs(
                    make_grader(dict.fromkeys(CHECKERS), workers, timeout, steps=False), set(CHECKERS), workers, timeout
                )
            grader = programs if row.what == "program" and programs else answers
            waiting.append((row, grader.submit(row.query, row.response)))
            if len(waiting) >= WINDOW:
                yield from _settled(waiting[: WINDOW // 2])
                waiting = waiting[WINDOW // 2 :]
        yield from _settled(waiting)
    finally:
        answers.close()
        if programs:
            programs.close()


def _settled(waiting: Sequence[tuple[Row, Future[Verdict]]]) -> Iterator[Failure]:
    for row, future in waiting:
        if not (verdict := future.result()).correct:
            yield Failure(row, verdict)


def read_known(path: Path) -> dict[str, str]:
    """`id what` -> reason, from lines of {"id", "what", "reason"}."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {f"{entry['id']} {entry['what']}": entry["reason"] for entry in lines}


def _steps(folder: Path, every: int) -> int:
    found: dict[str, Counter[bool | None]] = {}
    for row in rows(folder, ["rationale"], every):
        found.setdefault(row.file, Counter())[check_steps(row.response, STEPS[row.query.task])] += 1
    for file, n in found.items():
        shares = ", ".join(f"{value} {n[value] / n.total():.1%}" for value in (True, False, None))
        print(f"{file} ({n.total()}): {shares}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gsi.verify.remainder", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder of .jsonl or .jsonl.gz files: question, answer, rationale?, options?")
    parser.add_argument("--what", default="answer,rationale,program", help="a comma list of answer, rationale, program (default: all)")
    parser.add_argument("--known", type=Path, help="the list to compare with")
    parser.add_argument("--every", type=int, default=1, help="only every n-th row of each file")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds per row (default 60)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", action="store_true", help="count the rationales whose steps hold, per file, and nothing else")
    args = parser.parse_args()
    if args.steps:
        return _steps(args.folder, args.every)
    counts: Counter[str] = Counter()
    what = args.what.split(",")
    seen = set()
    known = read_known(args.known) if args.known else {}
    failed: Counter[str] = Counter()
    new = 0

    def counted() -> Iterator[Row]:
        for row in rows(args.folder, what, args.every):
            seen.add(f"{row.query.id} {row.what}")
            yield row

    for failure in failures(counted(), args.workers, args.timeout, counts):
        failed[f"{failure.row.file} {failure.row.what}"] += 1
        key = f"{failure.row.query.id} {failure.row.what}"
        if key not in known:
            new += 1
            print(json.dumps(failure.line(), ensure_ascii=False), flush=True)
        known.pop(key, None)
    right = [key for key in known if key in seen] if args.known else []
    for key in right:
        print(f"listed, but right now: {key} ({known[key]})")
    for name, count in counts.items():
        print(f"{name}: {failed[name]} of {count} not correct", file=sys.stderr)
    return 1 if args.known and (new or right) else 0


if __name__ == "__main__":
    sys.exit(main())

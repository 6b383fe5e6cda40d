"""`gsi tasks`: what is built in, what a run would read of some data, what it would leave out, and what of a test set is in the training data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from gsi import tasks
from gsi.config.data import Columns, Task
from gsi.progress import table_console
from gsi.tasks.golds import STOPS
from gsi.tasks.overlap import overlaps
from gsi.tasks.sources import is_local
from gsi.types import Grader, GsiError, Query
from gsi.verify import CHECKERS, make_grader


def task_of(data: str, check: str = "auto", columns: str | None = None, split: str = "train") -> Task:
    """`data` as a task: a file, a built-in task or a hub id, each also with `@SPLIT` behind it.

    `columns` reads `question=problem,answer=gold`. Raises GsiError for a mapping that names no field of ours.
    """
    if not is_local(data) and "@" in data:
        data, _, split = data.rpartition("@")
    mapping: dict[str, str] = {}
    for pair in filter(None, (columns or "").split(",")):
        field, _, column = (part.strip() for part in pair.partition("="))
        if field not in Columns.model_fields or not column:
            raise GsiError(f"--columns: {pair!r}: expected FIELD=COLUMN with a field of {', '.join(Columns.model_fields)}")
        mapping[field] = column
    if check not in CHECKERS:
        raise GsiError(f"--task: unknown task {check!r}; there are {', '.join(CHECKERS)}")
    if is_local(data):
        return Task(name=check, path=data, split=split, columns=Columns(**mapping))
    if data in tasks.TASKS:
        spec = tasks.TASKS[data]
        return Task(name=data, split=split, columns=Columns(**mapping), args={"per_level": 10} if spec.generated else {})
    return Task(name=check, hub=data, split=split, columns=Columns(**mapping))


def list_tasks() -> None:
    table = Table("task", "what", "hub id", "hard levels", "steps checked")
    for name, spec in tasks.TASKS.items():
        hub = f"{spec.hub}{f':{spec.configuration}' if spec.configuration else ''}" if spec.hub else "generated here"
        table.add_row(name, spec.about, hub, ", ".join(map(str, spec.hard_levels)), "yes" if spec.steps else "")
    table_console().print(table)


def show(data: str, check: str = "auto", columns: str | None = None, n: int = 2) -> None:
    """A built-in task as the registry has it, or the first rows of data as queries with what was read of all of them."""
    if data in tasks.TASKS and not is_local(data):
        _show_built_in(data)
        return
    task = task_of(data, check, columns)
    found = tasks.load(task)
    print(f"{data}: {len(found.queries)} questions, {len(found.problems)} rows left out")
    for line in _counts(found.queries):
        print(f"  {line}")
    for query in found.queries[:n]:
        print(json.dumps({k: v for k, v in asdict(query).items() if v is not None}, ensure_ascii=False, indent=1))


def _show_built_in(name: str) -> None:
    spec = tasks.TASKS[name]
    print(f"{name}: {spec.about}")
    if spec.hub:
        where = f"hub: {spec.hub}" + (f", configuration {spec.configuration}" if spec.configuration else "")
        print(where + (f", only split {spec.split}" if spec.split else ""))
        theirs = {ours: column for ours, column in spec.columns.model_dump().items() if ours != column}
        print("columns there: " + (", ".join(f"{column} ({ours})" for ours, column in theirs.items()) or "our own names"))
        print(f"in a config:  tasks: [{{name: {name}}}]   or with a file of yours:  tasks: [{{name: {name}, path: FILE.jsonl}}]")
        print(
            f"as programs:  tasks: [{{name: {name}, path: FILE.jsonl, programs: true}}]  (rationales that are Python serve as references)"
        )
    else:
        print(f"generated here:  tasks: [{{name: {name}, args: {{per_level: 100, seed: 1}}}}]")
    print(f"hard levels: {', '.join(map(str, spec.hard_levels)) or 'none declared (the lowest fifth by the initial pass rate)'}")
    print(f"steps of a rationale are checked: {'yes' if spec.steps else 'no'}")


def _counts(queries: Sequence[Query]) -> list[str]:
    levels = Counter(q.level for q in queries)
    found = [f"{name}: {count}" for name in ("rationale", "options") if (count := sum(getattr(q, name) is not None for q in queries))]
    if set(levels) - {None}:
        found.append("levels: " + ", ".join(f"{level}: {levels[level]}" for level in sorted(levels, key=lambda x: (x is None, x))))
    twice = len(queries) - len({" ".join(q.question.split()) for q in queries})
    return found + ([f"questions that occur again: {twice}"] if twice else [])


def check(data: str, name: str = "auto", columns: str | None = None) -> None:
    """Reads data, grades every answer against itself and lists what a run would leave out, and why. Raises GsiError where a run would stop."""
    task = task_of(data, name, columns)
    found = tasks.load(task, every=True)
    for problem in found.problems:
        print(problem)
    grader = make_grader({task.name: None}, workers=2, timeout=5.0)
    try:
        kept, bad = tasks.check_golds(found.queries, grader)
        contradicted = _contradicted(kept, grader)
    finally:
        grader.close()
    for problem in bad:
        print(problem)
    for a, b in contradicted:
        print(f"{b.id}: answer: {b.answer!r}, but {a.id} asks the same and has {a.answer!r}")
    print(f"{len(kept)} of {len(found.queries) + len(found.problems)} questions are usable")
    for line in _counts(kept):
        print(f"  {line}")
    if contradicted:
        print(f"  questions that occur again with another answer: {len(contradicted)} (a run keeps them: one of the two is wrong)")
    if stops := [p for p in found.problems if p.field == STOPS]:
        rows = f"{len(stops)} rows, first" if len(stops) > 1 else "one row,"
        raise GsiError(f"{data}: a run stops at {rows} {stops[0].file}:{stops[0].line}; mend or remove what is listed with `{STOPS}:`")
    if not kept:
        raise GsiError(f"{data}: no rows to use")


def _contradicted(queries: Sequence[Query], grader: Grader) -> list[tuple[Query, Query]]:
    """(the first of its text, one with another answer), where neither the letters nor the check finds the two answers equal."""
    firsts: dict[tuple[str, tuple[str, ...] | None], Query] = {}
    found = []
    for q in queries:
        first = firsts.setdefault((" ".join(q.question.split()), q.options), q)
        if q.answer.strip() != first.answer.strip() and not grader.submit(first, f"The answer is {q.answer}").result().correct:
            found.append((first, q))
    return found


def overlap(train: str, test: str, check: str, columns: str | None, n: int, share: float, as_json: bool) -> None:
    """Lists the questions of a test set that are also in the training data."""
    a, b = (tasks.load(task_of(data, check, columns)).queries for data in (train, test))
    generated = {name for name, spec in tasks.TASKS.items() if spec.generated}
    found = overlaps(a, b, n, share, generated)
    for o in found:
        if as_json:
            print(json.dumps({"test": o.query.id, "train": o.train.id, "kind": o.kind, "share": o.share}))
        else:
            print(f"{o.query.id}  {o.kind}{f' {o.share:.0%}' if o.kind == 'ngram' else ''}  {o.train.id}")
            print(f"    {_line(o.query.question)}\n    {_line(o.train.question)}")
    kinds = Counter(o.kind for o in found)
    text = f"{len(found)} of {len(b)} questions of {test} are also in {train}: {kinds['exact']} the same text, {kinds['ngram']} with {share:.0%} of their {n}-grams"
    print(json.dumps({"questions": len(b), "exact": kinds["exact"], "ngram": kinds["ngram"]}) if as_json else text)


def _line(text: str, width: int = 150) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."

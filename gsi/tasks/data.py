"""From a task of the config to checked queries; the check of the reference answers; the validation split.

Everything that is wrong with the data stops here, before anything is sampled, with file, line and field.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Any

from gsi.config import Task
from gsi.tasks import TASKS, Fields, LeftOut, TaskSpec, fields
from gsi.tasks.sources import LOCAL, Source, hub_dataset, local_file
from gsi.types import Grader, GsiError, Query, Verdict

FIELDS = ("id", "question", "answer", "rationale", "level", "options")
_SHOWN = 10  # rows that one message names
_USUAL = {  # column names that others use, for the mapping a message proposes
    "question": ("problem", "query", "prompt", "input", "question_concat", "instruction", "body", "text"),
    "answer": ("final_answer", "expected_answer", "gold", "target", "label", "correct", "solution", "output", "response"),
}


@dataclass(frozen=True)
class Problem:
    """A row or query that was left out, and why."""

    id: str
    field: str
    reason: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return f"{place}{self.id}: {self.field}: {self.reason}"


@dataclass(frozen=True)
class TaskData:
    queries: list[Query]
    hard_levels: tuple[int, ...]  # empty = none declared
    problems: list[Problem]
    fingerprint: str  # sha256 over the queries in order; the same for the same content, whatever the file is called


def load(task: Task, every: bool = False) -> TaskData:
    """Reads the queries of a task: its file (`path`), its `hub` data set, the built-in one's, or a lab task's generator.

    With `every`, a row that cannot be read is one of the problems, and the others go on.

    Where no row has an id, ids are made from the name, the split unless it is `train`, and the line: `gsm8k-00001`.
    Raises GsiError, with place, field and fix, for anything that does not become a query.
    """
    spec = TASKS.get(task.name)
    generated = spec is not None and spec.generated is not None and not task.path and not task.hub
    if task.args and not generated and (spec or task.path or task.hub):
        raise GsiError(f"task {task.name}: `args` are for generated lab tasks without path and hub ({', '.join(_lab())}); remove them")
    problems: list[Problem] = []
    if spec and generated:
        queries = _generate(task, spec)
    else:
        source = _source(task, spec)
        queries, problems = _read(task, spec, source, every)
        if not queries:
            why = f"; {len(problems)} were left out, the first because {problems[0].reason}" if problems else ""
            raise GsiError(f"{source.name}: no rows to use{why}")
    return _data(task, queries, problems)


def from_queries(queries: Sequence[Query], task: Task) -> TaskData:
    """The same for queries made in Python. Raises GsiError for an id that occurs twice or an empty question or answer."""
    queries = queries[: task.limit or None]
    if not queries:
        raise GsiError(f"task {task.name}: no queries were given")
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise GsiError(f"task {task.name}: the id {query.id!r} occurs twice; ids must be unique")
        seen.add(query.id)
        for field in ("id", "question", "answer"):
            if not (fields.text(f"query {query.id!r}", field, getattr(query, field)) or "").strip():
                raise GsiError(f"query {query.id!r}: field `{field}` is empty; fill it in or leave the query out")
    return _data(task, list(queries), [])


def _data(task: Task, queries: list[Query], problems: list[Problem]) -> TaskData:
    spec = TASKS.get(task.name)
    hard = task.hard_levels or (spec.hard_levels if spec else ())
    return TaskData(queries, hard, problems, fingerprint(queries))


def fingerprint(queries: Sequence[Query]) -> str:
    digest = hashlib.sha256()
    for query in queries:
        digest.update(json.dumps(astuple(query)).encode() + b"\n")
    return digest.hexdigest()


# --------------------------------------------------------------------------------------- where the rows come from


def _lab() -> list[str]:
    return [name for name, spec in TASKS.items() if spec.generated]


def _source(task: Task, spec: TaskSpec | None) -> Source:
    if task.path:
        return local_file(task.path)
    hub, configuration = task.hub, None
    if hub is None and spec:
        hub, configuration = spec.hub, spec.configuration
    elif hub:
        hub, _, configuration = hub.partition(":")
    if hub is None:
        near = difflib.get_close_matches(task.name, TASKS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise GsiError(f"unknown task {task.name!r}{hint}; built in: {', '.join(TASKS)}; for your own data set {LOCAL} or tasks.N.hub=ID")
    wanted = {column for field in FIELDS for column in _candidates(task, spec, field)}
    return hub_dataset(hub, configuration or None, task.split, wanted)


def _generate(task: Task, spec: TaskSpec) -> list[Query]:
    args, where = dict(task.args), f"task {task.name}: args"
    if unknown := [key for key in args if key not in ("per_level", "seed", "levels")]:
        raise GsiError(f"{where}: unknown {unknown[0]!r}; there are per_level, seed, levels")
    args = {"seed": 0, **args}
    if not fields.is_int(args.get("per_level")) or args["per_level"] < 1:
        raise GsiError(
            f"{where}.per_level: expected a whole number from 1, got {args.get('per_level')!r}; e.g. {{per_level: 100, seed: 1}}"
        )
    if not fields.is_int(args["seed"]):
        raise GsiError(f"{where}.seed: expected a whole number, got {args['seed']!r}")
    levels = args.get("levels", [1])
    if not isinstance(levels, list | tuple) or not levels or not all(fields.is_int(level) for level in levels):
        raise GsiError(f"{where}.levels: expected a list of whole numbers such as [1, 2, 3], got {levels!r}")
    assert spec.generated is not None
    return spec.generated(**args)[: task.limit or None]


# --------------------------------------------------------------------------------------- rows -> queries


def _candidates(task: Task, spec: TaskSpec | None, field: str) -> list[str]:
    """Columns that may hold a field: the mapped one, else our own name, else the built-in task's."""
    mapped = getattr(task.columns, field)
    if mapped != field or spec is None:
        return [mapped]
    return [field, getattr(spec.columns, field)]


def _read(task: Task, spec: TaskSpec | None, source: Source, every: bool = False) -> tuple[list[Query], list[Problem]]:
    queries: list[Query] = []
    problems: list[Problem] = []
    empty: list[str] = []
    seen: set[str] = set(source.columns or ())
    names = _Ids(task, source)
    for line, row in islice(source.rows, task.limit or None):
        name = f"{source.unit} {line}"
        try:
            if isinstance(row, GsiError):
                raise row
            seen.update(row)
            raw: Fields = {field: next((row[c] for c in _candidates(task, spec, field) if c in row), None) for field in FIELDS}
            name = names.take(line, raw["id"])
            query = _query(task, spec, source, source.at(line), name, row, raw)
        except LeftOut as e:
            problems.append(Problem(name, "answer", str(e), source.name, line))
            continue
        except GsiError as e:
            if not every:
                raise
            problems.append(Problem(name, "row", str(e).removeprefix(f"{source.at(line)}: "), source.name, line))
            continue
        if blank := [field for field in ("question", "answer") if not getattr(query, field).strip()]:
            empty.append(f"{source.unit} {line} ({' and '.join(blank)})")
            problems += [Problem(name, field, "empty; fill it in or remove the row", source.name, line) for field in blank]
            continue
        queries.append(query)
    for field in FIELDS:
        column = getattr(task.columns, field)
        if column != field and seen and column not in seen:
            raise GsiError(_missing(task, spec, source.name, field, sorted(seen)))
    if empty and not every:
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        raise GsiError(
            f"{source.name}: rows with an empty question or answer: {len(empty)}: {', '.join(empty[:_SHOWN])}{more}; fill or remove them"
        )
    return queries, problems


def _query(task: Task, spec: TaskSpec | None, source: Source, at: str, name: str, row: Mapping[str, Any], raw: Fields) -> Query:
    raw = spec.answer_from(raw) if spec and spec.answer_from else raw
    for field in ("question", "answer"):
        if raw[field] is None and not any(c in row for c in _candidates(task, spec, field)):
            raise GsiError(_missing(task, spec, at, field, list(source.columns or row)))
    question = fields.text(at, "question", raw["question"]) or ""
    answer = fields.text(at, "answer", raw["answer"], numbers=True) or ""
    rationale, level = fields.text(at, "rationale", raw["rationale"]) or None, fields.level(at, raw["level"])
    return Query(name, task.name, question, answer, rationale, level, fields.options(at, raw["options"]))


class _Ids:
    """Ids of the rows of one source: all their own and unique, or all made here."""

    def __init__(self, task: Task, source: Source):
        self._source = source
        self._prefix = task.name if task.split == "train" else f"{task.name}-{task.split}"
        self._lines: dict[str, int] = {}  # own id -> line
        self._without: int | None = None  # first line without one

    def take(self, line: int, value: Any) -> str:
        at, unit = self._source.at(line), self._source.unit
        if value is None or value == "":
            if self._lines:
                first = min(self._lines.values())
                raise GsiError(f"{at}: field `id` is missing, but {unit} {first} has one; give every row an id, or none")
            self._without = self._without or line
            return f"{self._prefix}-{line:05d}"
        name = str(value) if fields.is_int(value) else fields.text(at, "id", value) or ""
        if self._without:
            raise GsiError(f"{at}: field `id` is {name!r}, but {unit} {self._without} has none; give every row an id, or none")
        if name in self._lines:
            raise GsiError(f"{at}: field `id`: {name!r} is also the id of {unit} {self._lines[name]}; ids must be unique")
        self._lines[name] = line
        return name


def _missing(task: Task, spec: TaskSpec | None, at: str, field: str, columns: Sequence[str]) -> str:
    mapping = {}
    for wanted in dict.fromkeys(("question", "answer", field)):
        if any(c in columns for c in _candidates(task, spec, wanted)):
            continue
        lower = {c.lower(): c for c in columns}
        usual = (wanted, *_USUAL.get(wanted, ()))
        mapping[wanted] = next((lower[name] for name in usual if name in lower), "COLUMN")
    looked = " or ".join(repr(c) for c in dict.fromkeys(_candidates(task, spec, field)))
    paste = ", ".join(f"{key}: {value}" for key, value in mapping.items())
    return f"{at}: field `{field}`: no column {looked}; the columns are: {', '.join(columns)}; map them in the task: `columns: {{{paste}}}`"


# --------------------------------------------------------------------------------------- checks and splits


def check_golds(
    queries: Sequence[Query], grader: Grader, own_check: Collection[str] = (), programs: Collection[str] = ()
) -> tuple[list[Query], list[Problem]]:
    """Grades every query's own answer and rationale; (queries that hold against themselves, problems of those left out).

    A lab task states its rationale and a built-in one `The answer is ...`. Tasks of other names, and those in `own_check`
    (the names of tasks with a `check` of their own), state the bare answer first and the sentence second; either counts.
    A query whose reference answer cannot be right would burn its whole budget in every iteration. A rationale that ends in
    another answer leaves its query out too: one of the two is wrong. One that states no answer is no reason; rationales of
    tasks with a check of their own, and of `programs`, are not graded here.

    Raises GsiError where no answer of a task verifies: then the data or the checker is wrong, not a row.
    """
    forms_Q = [list(_statements(query, own_check)) for query in queries]
    futures_Q = [grader.submit(query, forms[0]) for query, forms in zip(queries, forms_Q, strict=True)]
    verdict_Q: list[Verdict] = [future.result() for future in futures_Q]
    again = [i for i, forms in enumerate(forms_Q) if len(forms) > 1 and not verdict_Q[i].correct]
    for i, future in [(i, grader.submit(queries[i], forms_Q[i][1])) for i in again]:
        verdict_Q[i] = future.result()
    kept = [query for query, verdict in zip(queries, verdict_Q, strict=True) if verdict.correct]
    working, problems = {query.task for query in kept}, []
    for query, verdict in zip(queries, verdict_Q, strict=True):
        if verdict.correct:
            continue
        detail = f" ({verdict.detail})" if verdict.detail else ""
        problems.append(Problem(query.id, "answer", f"{verdict.status}: {query.answer!r} does not verify as its own answer{detail}"))
        if query.task not in working:
            raise GsiError(
                f"task {query.task}: none of its reference answers verifies, first {problems[-1]}; fix the answers or the task's `check`"
            )
    graded = [q for q in kept if q.rationale and q.task in TASKS and not TASKS[q.task].generated and q.task not in {*own_check, *programs}]
    futures = [grader.submit(query, query.rationale or "") for query in graded]
    contradicted = {q.id: v for q, future in zip(graded, futures, strict=True) if (v := future.result()).status == "wrong"}
    for query in graded:
        if query.id in contradicted:
            said = contradicted[query.id].extracted
            problems.append(Problem(query.id, "rationale", f"wrong: it ends in {said!r}, but the answer is {query.answer!r}"))
    return [q for q in kept if q.id not in contradicted], problems


def _statements(query: Query, own_check: Collection[str]) -> Iterator[str]:
    spec = TASKS.get(query.task)
    if spec and spec.generated and query.rationale:
        yield query.rationale
        return
    if spec is None or query.task in own_check:
        yield query.answer
    yield f"The answer is {query.answer}"


def split_validation(queries: Sequence[Query], validation: float, seed: int) -> tuple[list[Query], list[Query]]:
    """(train, validation), both in the order given. `validation` below 1 is a share (at least one query), else a number; 0 = none.

    Stratified by task and level, and chosen by a hash of seed and query id, so it does not depend on the order of the
    queries. Queries with the same question text stay on one side, and at least one query stays in training; for both
    reasons validation may come out smaller than asked for.
    """
    if not queries or validation <= 0:
        return list(queries), []
    groups: dict[str, list[Query]] = defaultdict(list)  # text -> its queries
    for query in queries:
        groups[_same(query)].append(query)
    strata: dict[tuple[str, int | None], list[tuple[bytes, str]]] = defaultdict(list)  # (rank, text) of every group
    size: dict[tuple[str, int | None], int] = defaultdict(int)  # queries
    for text, group in groups.items():
        rank, first = min(((_rank(seed, query.id), query) for query in group), key=lambda pair: pair[0])
        strata[first.task, first.level].append((rank, text))
        size[first.task, first.level] += len(group)

    total = max(1, round(validation * len(queries))) if validation < 1 else int(validation)
    total = min(total, len(queries) - 1)
    quota = {key: total * n // len(queries) for key, n in size.items()}
    by_remainder = sorted(size, key=lambda key: (-(total * size[key] % len(queries)), _rank(seed, repr(key))))
    for key in by_remainder[: total - sum(quota.values())]:
        quota[key] += 1

    chosen: set[str] = set()  # texts
    for key, members in strata.items():
        left = quota[key]
        for _, text in sorted(members):
            if len(groups[text]) <= left:
                left -= len(groups[text])
                chosen.add(text)
    return [q for q in queries if _same(q) not in chosen], [q for q in queries if _same(q) in chosen]


def _same(query: Query) -> str:
    return " ".join(query.question.split())


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}/{text}".encode()).digest()

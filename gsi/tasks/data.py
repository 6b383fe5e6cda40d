"""From a task of the config to queries: columns by mapping, by our names, by a built-in task's, by TRL's or by those of the paper's files.

What is wrong with the data stops here, before anything is sampled, with file, line and field. Rows without an answer are left out and listed.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from gsi.config.data import Task
from gsi.tasks import TASKS, Fields, TaskSpec, conversations, fields
from gsi.tasks.choices import right_letter, with_choices
from gsi.tasks.endings import final_answer
from gsi.tasks.fields import LeftOut
from gsi.tasks.golds import STOPS, Problem
from gsi.tasks.hub import hub_dataset
from gsi.tasks.sources import LOCAL, Source, local_file
from gsi.types import GsiError, Query

FIELDS = ("id", "question", "answer", "rationale", "level", "options")
TRL = {  # columns of TRL's data sets (prompt and completion, GRPO's solution, conversations), read where a field has no column of its own
    "question": ("prompt", "messages", "conversations"),
    "answer": ("solution", "ground_truth"),
    "rationale": ("completion", "messages", "conversations"),
}
PAPER = {"id": "item_id", "answer": "answer_value", "rationale": "answer_cot"}  # columns of the paper's own files, read last
_USUAL = {  # column names that others use, for the mapping a message proposes
    "question": ("problem", "query", "prompt", "input", "question_concat", "instruction", "body", "text"),
    "answer": ("final_answer", "expected_answer", "gold", "target", "label", "correct", "solution", "output", "response"),
}


@dataclass(frozen=True)
class TaskData:
    queries: list[Query]
    hard_levels: tuple[int, ...]  # empty = none declared
    problems: list[Problem]
    fingerprint: str  # sha256 over the queries in order; the same for the same content, whatever the file is called


def load(task: Task, every: bool = False, entry: int = 1) -> TaskData:
    """Reads the queries of a task: its file (`path`), its `hub` data set, the built-in one's, or a lab task's generator.

    Where no row has an id, ids are made from the name, the split unless it is `train`, and the line: `gsm8k-00001`; of the second entry of this
    name and split in a list (`entry`) `gsm8k-2-00001`.
    With `every`, a row that stops a run is one of the problems (`golds.STOPS`), and the others go on; there may be no query then.

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
        queries, problems = _read(task, spec, source, every, entry)
        if not queries and not (every and problems):
            why = f"; {len(problems)} were left out, the first because {problems[0].reason}" if problems else ""
            raise GsiError(f"{source.name}: no rows to use{why}")
    return _data(task, queries, problems)


def from_queries(queries: Iterable[Query], task: Task) -> TaskData:
    """The same for queries made in Python, which become the task's. Raises GsiError for what is no Query, a field of another kind, an empty
    question or answer, and an id that occurs twice."""
    if isinstance(queries, str | Mapping) or not isinstance(queries, Iterable):
        raise GsiError(f"task {task.name}: queries: expected a list of gsi.Query, found {type(queries).__name__}")
    checked = [_checked(number, query, task) for number, query in enumerate(islice(queries, task.limit or None))]
    if not checked:
        raise GsiError(f"task {task.name}: no queries were given")
    seen: set[str] = set()
    for query in checked:
        if query.id in seen:
            raise GsiError(f"task {task.name}: the id {query.id!r} occurs twice; ids must be unique")
        seen.add(query.id)
    return _data(task, checked, [])


def _checked(number: int, query: Query, task: Task) -> Query:
    if not isinstance(query, Query):
        make = f"gsi.Query(id='q{number}', task={task.name!r}, question=..., answer=...)"
        raise GsiError(f"task {task.name}: queries[{number}]: expected a gsi.Query, found {type(query).__name__}; make it one: {make}")
    fields.text(f"queries[{number}]", "id", query.id)
    at = f"query {query.id!r}"
    for field in ("id", "question", "answer", "rationale"):
        value = fields.text(at, field, getattr(query, field))
        if field != "rationale" and not (value or "").strip():
            raise GsiError(f"{at}: field `{field}` is empty; fill it in or leave the query out")
    level, options = fields.level(at, query.level), fields.options(at, query.options) or query.options
    question = query.question
    if options and len(query.answer.strip()) == 1 and query.answer.strip().isalpha() and not task.check:
        question = with_choices(question, options)
    same = (task.name, level, options, question) == (query.task, query.level, query.options, query.question)
    return query if same else replace(query, task=task.name, level=level, options=options, question=question)


def _data(task: Task, queries: list[Query], problems: list[Problem]) -> TaskData:
    spec = TASKS.get(task.name)
    hard = task.hard_levels or (spec.hard_levels if spec else ())
    queries = [replace(q, marked=True) for q in queries] if task.marked else queries
    return TaskData(queries, hard, problems, fingerprint(queries))


def fingerprint(queries: Sequence[Query]) -> str:
    digest = hashlib.sha256()
    for q in queries:  # the data alone: how it is graded (`marked`) is the config's
        digest.update(json.dumps((q.id, q.task, q.question, q.answer, q.rationale, q.level, q.options)).encode() + b"\n")
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
    wanted = {part for field in FIELDS for column in _candidates(task, spec, field) for part in (column, column.split(".")[0])}
    split = spec.split if spec and spec.split and not task.hub and task.split == "train" else task.split
    return hub_dataset(hub, configuration or None, split, wanted)


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
    """Columns that may hold a field: the mapped one, else our own name, else the built-in task's or those of TRL and the paper."""
    mapped = getattr(task.columns, field)
    if mapped != field:
        return [mapped]
    theirs = spec.columns.model_dump() if spec else {}
    usual = () if theirs.get(field, field) != field else [c for c in TRL.get(field, ()) if c not in theirs.values()]
    others = {column for other in FIELDS if other != field and (column := getattr(task.columns, other)) != other}
    found = dict.fromkeys((field, theirs.get(field, field), *usual, *([PAPER[field]] if field in PAPER else [])))
    return [column for column in found if column not in others or column == field]


def _cell(row: dict[str, Any], column: str) -> tuple[bool, Any]:
    """(whether the row has it, its value); `a.b` is field b of column a, `a.0` the first entry of a list."""
    if column in row:
        return True, row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value


def _read(task: Task, spec: TaskSpec | None, source: Source, every: bool = False, entry: int = 1) -> tuple[list[Query], list[Problem]]:
    queries: list[Query] = []
    problems: list[Problem] = []
    columns: dict[str, None] = dict.fromkeys(source.columns or ())  # all that were seen, in order
    candidates = {field: _candidates(task, spec, field) for field in FIELDS}
    found: set[str] = set()  # fields that some row has a column for
    first: str | None = None
    members: set[str] = set()  # rows of a larger set that say they belong to this task
    names = _Ids(task, source, entry)
    for line, row in islice(source.rows, task.limit or None):
        at, name = source.at(line), f"{source.unit} {line}"
        try:
            if isinstance(row, GsiError):
                raise row
            columns |= dict.fromkeys(row)
            first, raw = first or at, Fields()
            for field in FIELDS:
                there = [value for has, value in (_cell(row, c) for c in candidates[field]) if has]
                raw[field] = next((value for value in there if value is not None), None)
                found |= {field} if there else set()
            name = names.take(line, raw["id"])
            if spec and spec.member and row.get(spec.member):
                members.add(name)
            query = _query(task, spec, at, name, raw)
        except LeftOut as e:
            problems.append(Problem(name, e.field, str(e), source.name, line))
            found |= {"answer"} if raw["rationale"] is not None else set()
        except GsiError as e:
            if not every:
                raise
            problems.append(Problem(name, STOPS, str(e).removeprefix(f"{at}: "), source.name, line))
        else:
            found.add("answer")  # a column, or cut out of a solution
            queries.append(query)
    for field in FIELDS:
        needed = field in ("question", "answer") or getattr(task.columns, field) != field
        if needed and columns and field not in found:
            at = source.name if field not in ("question", "answer") else first or source.name
            raise GsiError(_missing(task, spec, at, field, list(columns)))
    if members:
        queries, problems = [q for q in queries if q.id in members], [p for p in problems if p.id in members]
    return queries, problems


_SOLUTION = re.compile(r"\\boxed|####|\banswer is:?\s+[^\s.*]", re.IGNORECASE)  # what is no bare answer


def _query(task: Task, spec: TaskSpec | None, at: str, name: str, raw: Fields) -> Query:
    """One row as a query. Raises LeftOut where it has no question or answer, GsiError where a value is of another kind than its field."""
    raw = _talk(raw)
    if spec and spec.answer_from:
        raw = spec.answer_from(raw)
    answer = fields.text(at, "answer", raw["answer"], numbers=True) or ""
    rationale = fields.text(at, "rationale", raw["rationale"]) or None
    if not task.programs and not answer.strip() and rationale:
        answer = final_answer(rationale) or ""
        if not answer:
            raise LeftOut("no answer, and the solution has no \\boxed{...}, `####` or `the answer is` to take one from")
    elif not task.programs and spec is None and isinstance(raw["answer"], str) and _SOLUTION.search(answer):
        rationale, answer = rationale or answer, final_answer(answer) or ""  # TRL's `solution` may be a whole one
    question = fields.text(at, "question", raw["question"]) or ""
    for field, value in (("question", question), ("answer", answer)):
        if not value.strip():
            raise LeftOut("empty", field)
    options = fields.options(at, raw["options"])
    if spec is None and options and not (task.programs or task.check):
        answer = right_letter(answer, options, fields.labels(raw["options"]), raw["answer"])
        question = with_choices(question, options)
    if task.programs and rationale and not _is_program(rationale):
        rationale = None  # a solution in words is no reference for programs
    return Query(name, task.name, question, answer, rationale, fields.level(at, raw["level"]), options)


def _talk(raw: Fields) -> Fields:
    """Conversations as the texts that are meant: the user's turn asks, the model's turn is the solution."""
    try:
        if conversations.is_conversation(raw["question"]):
            raw = raw | {"question": conversations.asked(raw["question"])}
    except conversations.NotOneQuestion as e:
        raise LeftOut(str(e), "question") from None
    if conversations.is_conversation(raw["rationale"]):
        raw = raw | {"rationale": conversations.answered(raw["rationale"])}
    if conversations.is_conversation(raw["answer"]):
        raw = raw | {"answer": None, "rationale": raw["rationale"] or conversations.answered(raw["answer"])}
    return raw


def _is_program(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):  # ValueError: null bytes
        return False
    return True


class _Ids:
    """Ids of the rows of one source: all their own and unique, or all made here."""

    def __init__(self, task: Task, source: Source, entry: int):
        self._source = source
        split = source.split or task.split
        self._prefix = (task.name if split == "train" else f"{task.name}-{split}") + (f"-{entry}" if entry > 1 else "")
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
        if wanted != field and any(c.split(".")[0] in columns for c in _candidates(task, spec, wanted)):
            continue
        lower = {c.lower(): c for c in reversed(columns)}
        usual = (wanted, *_USUAL.get(wanted, ()))
        mapping[wanted] = next((lower[name] for name in usual if name in lower), "COLUMN")
    looked = " or ".join(repr(c) for c in dict.fromkeys(_candidates(task, spec, field)))
    paste = ", ".join(f"{key}: {value}" for key, value in mapping.items())
    typed = ",".join(f"{key}={value}" for key, value in mapping.items())
    return (
        f"{at}: field `{field}`: no column {looked}; the columns are: {', '.join(columns)}; map them in the task: `columns: {{{paste}}}` "
        f"(gsi tasks: `--columns {typed}`)"
    )

"""Samples that others have drawn, read from their files: the paper's results, TRL's prompt and completion sets, plain rows.

The paper's released code (arXiv 2411.00750, `save_results`) writes one JSON list of
`{item_id, question, answer_cot, answer_value, pred: [text, ...], pred_value, correct_pred}`, and a retry appends its items
to the same list; an item that is there twice word for word is read once. A plain row has a question and one response, or a
list of them; rows with the same question belong together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gsi.tasks import TASKS, LeftOut, fields
from gsi.tasks.choices import right_letter, with_choices
from gsi.tasks.conversations import NotOneQuestion, answered, asked, is_conversation
from gsi.tasks.endings import final_answer
from gsi.tasks.golds import Problem
from gsi.tasks.sources import local_file, readable
from gsi.types import GsiError, Query
from gsi.verify import grade

NAMES = {  # columns as they are usually called, first come first served
    "id": ("query_id", "question_id", "item_id", "problem_id", "id"),
    "question": ("question", "problem", "query", "prompt", "messages", "conversations"),
    "answer": ("answer", "answer_value", "gold", "ground_truth", "target", "solution"),
    "rationale": ("rationale", "answer_cot", "reference"),
    "level": ("level", "difficulty"),
    "options": ("options", "choices"),
    "response": ("response", "responses", "pred", "completion", "completions", "generation", "generations", "samples", "outputs", "output",
                 "prediction", "messages", "conversations"),
}  # fmt: skip
_TASKS = {
    "aqua_rat": "aqua",
    "aqua": "aqua",
    "gsm8k": "gsm8k",
    "math": "math",
    "mathqa": "mathqa",
    "svamp": "svamp",
    "theoremqa": "theoremqa",
}
# one of the six sentences that the paper's program-of-thought questions end in
_ASKS = re.compile(
    r"\s*(?:Let's (?:write|program)|Please (?:write|respond by writing)|Please respond)[^?!]{0,60}(?:program|Python)[^?!]{0,30}$"
)


@dataclass(frozen=True)
class Sample:
    text: str
    finish_reason: str = "stop"
    tokens: int | None = None
    model: str | None = None


@dataclass
class Samples:
    """What a file holds: questions with the responses to them, in file order, and rows that are neither."""

    queries: list[Query] = field(default_factory=list)
    drawn: dict[str, list[Sample]] = field(default_factory=dict)  # query id -> its samples
    problems: list[Problem] = field(default_factory=list)
    repeated: int = 0  # items that stood there twice, word for word
    programs: bool = False  # the questions ask for programs


def read_samples(path: str, task: str | None, columns: Mapping[str, str], questions: Sequence[Query] = ()) -> Samples:
    """Reads a file of samples.

    Args:
        task: how answers are checked; None = by the id of the paper's items, else `auto`.
        columns: our field (those of NAMES) -> the file's column, where it is none of the usual ones.
        questions: where the answers come from, for files that have none; matched by id, else by the question's text.

    Raises GsiError for a file that holds no samples, or whose questions have no answers to grade by.
    """
    found, source = Samples(), local_file(path)
    rows = list(_rows(readable(source.rows), source.at, columns))
    found.programs = bool(rows) and sum(bool(_ASKS.search(row["question"])) for _, row in rows) > 0.9 * len(rows)
    ids, known = _own_ids(row for _, row in rows), _Known(questions, task, source.unit)
    whole: set[tuple[Any, ...]] = set()
    for line, row in rows:
        text = _ASKS.sub("", row["question"]) if found.programs else row["question"]
        item = (row["id"], text, row["answer"], tuple(row["response"]))
        if len(row["response"]) > 1 and item in whole:
            found.repeated += 1
            continue
        whole.add(item)
        name = ids.get(_text(row["question"])) or f"{task or 'sample'}-{line:05d}"
        try:
            query = known.query(line, name, text, row)
        except LeftOut as e:
            found.problems.append(Problem(name, e.field, str(e), path, line))
            continue
        if query.id not in found.drawn:
            found.queries.append(query)
        found.drawn.setdefault(query.id, []).extend(row["samples"])
    if not found.queries:
        first = f", first {found.problems[0]}" if found.problems else ""
        raise GsiError(
            f"{path}: no sample can be graded: {len(found.problems)} rows have no answer to grade by{first}; name the data that has them "
            "(--questions FILE, a built-in task or a hub id), or the column (--columns answer=COLUMN)"
        )
    return found


def _rows(rows: Iterable[tuple[int, dict[str, Any]]], at: Any, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, fields) with `question` a text, `response` a list of texts, `samples` the same as samples."""
    for line, row in rows:
        names = {name: (columns[name],) if name in columns else usual for name, usual in NAMES.items()}
        got = {name: next((row[c] for c in usual if row.get(c) is not None), None) for name, usual in names.items()}
        try:
            question = asked(got["question"]) if is_conversation(got["question"]) else got["question"]
        except NotOneQuestion as e:
            raise GsiError(f"{at(line)}: field `question`: {e}") from None
        responses = [got["response"]] if is_conversation(got["response"]) or not isinstance(got["response"], list) else got["response"]
        texts = [answered(r) if is_conversation(r) else r for r in responses]
        if not isinstance(question, str) or not texts or not all(isinstance(t, str) for t in texts):
            missing = "question" if not isinstance(question, str) else "response"
            raise GsiError(
                f"{at(line)}: field `{missing}`: no text in a column {' or '.join(names[missing])}; the columns are: {', '.join(row)}; "
                f"map it with --columns {missing}=COLUMN"
            )
        answer = got["answer"]
        if isinstance(answer, str) and ("\\boxed" in answer or "####" in answer):
            answer = final_answer(answer)
        model = fields.text(at(line), "model", row.get("model"))
        reasons = [fields.text(at(line), "finish_reason", r) or "stop" for r in _each(row.get("finish_reason"), texts)]
        counts = [fields.count(at(line), "generated_tokens", n) for n in _each(row.get("generated_tokens"), texts)]
        if len(texts) > 1 and not isinstance(row.get("generated_tokens"), list):
            counts = [None] * len(texts)  # one number for several may be their sum
        drawn = [Sample(str(t), reason, count, model) for t, reason, count in zip(texts, reasons, counts, strict=True)]
        got |= {
            "id": str(got["id"]) if got["id"] is not None else None,
            "question": question,
            "answer": fields.text(at(line), "answer", answer, numbers=True),
            "rationale": fields.text(at(line), "rationale", got["rationale"]),
            "level": fields.level(at(line), got["level"]),
            "options": fields.options(at(line), got["options"]),
            "response": texts,
            "samples": drawn,
        }
        yield line, got


def _each(value: Any, texts: Sequence[Any]) -> list[Any]:
    """A value per response: a list of as many, or one that all share."""
    return value if isinstance(value, list) and len(value) == len(texts) else [value] * len(texts)


class _Known:
    """The questions so far: those given, or those of the rows before."""

    def __init__(self, given: Sequence[Query], task: str | None, unit: str):
        self._task, self._unit, self._given = task, unit, bool(given)
        self._by_id = {q.id: q for q in given}
        self._by_text: dict[str, Query] = {}
        self._unclear: dict[str, str] = {}  # text -> why the questions given do not tell its answer
        self._lines: dict[str, int] = {}  # query id -> where it stood first
        self._same: dict[tuple[str, str], bool] = {}  # (query id, answer)
        for q in given:
            first = self._by_text.setdefault(_text(q.question), q)
            if not self._agrees(first, q.answer):
                self._unclear[_text(q.question)] = (
                    f"the questions given answer it with {first.answer!r} ({first.id}) and with {q.answer!r} ({q.id}); give each sample its id"
                )

    def query(self, line: int, name: str, text: str, row: Mapping[str, Any]) -> Query:
        """The one that a row is a sample of; `name` is the id of a new one. Raises LeftOut for a row that cannot be graded."""
        query = self._by_id.get(row["id"] or "") if self._given else None
        if query is None and _text(text) in self._unclear:
            raise LeftOut(self._unclear[_text(text)], "question")
        query = query or self._by_text.get(_text(text))
        if query is None:
            if self._given:
                raise LeftOut("not among the questions given", "question")
            if not row["answer"]:
                raise LeftOut("empty")
            query = self._by_text[_text(text)] = _query(name, self._task, text, row)
            self._lines[name] = line
        elif not self._given and row["answer"] and not self._agrees(query, row["answer"]):
            first = f"{self._unit} {self._lines[query.id]}"
            raise LeftOut(f"{row['answer']!r}, but {first} answers the same question with {query.answer!r}: one of the two is wrong")
        self._by_text.setdefault(_text(text), query)  # a sample without an id may follow one with it
        return query

    def _agrees(self, query: Query, answer: str) -> bool:
        """Whether it is the query's answer, by its letters or else by the task's check; asked once, as every row of a question repeats it."""
        if answer.strip() == query.answer.strip():
            return True
        if (query.id, answer) not in self._same:
            stated = f"The answer is {answer}"
            self._same[query.id, answer] = grade(stated, query.answer, query.task, query.options, query.question).correct
        return self._same[query.id, answer]


def _own_ids(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Text of a question -> the id that all its rows share and no other question has."""
    ids: dict[str, set[str | None]] = {}
    for row in rows:
        ids.setdefault(_text(row["question"]), set()).add(row["id"])
    owners = Counter(i for found in ids.values() for i in found)
    return {text: one for text, found in ids.items() if len(found) == 1 and (one := next(iter(found))) and owners[one] == 1}


def _query(name: str, task: str | None, question: str, row: Mapping[str, Any]) -> Query:
    of_the_paper = re.fullmatch(r"(\w+?)_\d+", row["id"] or "")
    check = task or _TASKS.get(of_the_paper.group(1) if of_the_paper else "", "auto")
    answer, options = row["answer"], row["options"]
    if check in ("aqua", "mathqa"):
        of_choices = TASKS[check].answer_from  # as a run reads the questions that are written from these
        assert of_choices is not None
        read = of_choices({"question": question, "answer": answer, "options": list(options or ()) or None, "rationale": row["rationale"]})
        question, answer, options = read["question"], read["answer"], tuple(read["options"]) if read["options"] else None
    elif options:
        answer, question = right_letter(answer, options), with_choices(question, options)
    query = Query(name, check, question, answer, row["rationale"] or None, row["level"], options)
    return replace(query, options=_choices(question)) if check in ("aqua", "mathqa") and not options else query


def _choices(question: str) -> tuple[str, ...] | None:
    """`... Answer Choices: (A) 32 (B) 64` -> ("32", "64")."""
    shown = question.partition("Answer Choices:")[2]
    parts = re.split(r"\(([A-J])\)", shown)[1:]
    options = tuple(text.strip() for text in parts[1::2])
    return options if len(options) > 1 and "".join(parts[::2]) == "ABCDEFGHIJ"[: len(options)] else None


def _text(question: str) -> str:
    return " ".join(question.split())

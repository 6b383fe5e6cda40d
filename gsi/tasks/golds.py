"""The check of the reference answers: a query that does not hold against itself would burn its budget in every iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from gsi.tasks import TASKS
from gsi.types import Grader, GsiError, Query, Verdict

UNDER_WAY = 4096
STOPS = "row"  # the field of a problem that a run does not leave out: it stops there


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
    first = ((i, query, next(_statements(query, own_check))) for i, query in enumerate(queries))
    bad = {i: verdict for i, verdict in _verdicts(grader, first) if not verdict.correct}  # by place
    again = [(i, queries[i], forms[1]) for i in bad if len(forms := list(_statements(queries[i], own_check))) > 1]
    bad = {i: verdict for i, verdict in (bad | dict(_verdicts(grader, again))).items() if not verdict.correct}
    kept = [query for i, query in enumerate(queries) if i not in bad]
    working, problems = {query.task for query in kept}, []
    for i, verdict in bad.items():
        query = queries[i]
        detail = f" ({verdict.detail})" if verdict.detail else ""
        problems.append(Problem(query.id, "answer", f"{verdict.status}: {query.answer!r} does not verify as its own answer{detail}"))
        if query.task not in working:
            raise GsiError(
                f"task {query.task}: none of its reference answers verifies, first {problems[-1]}; fix the answers or the task's `check`"
            )
    rationales = (
        (i, q, q.rationale)
        for i, q in enumerate(kept)
        if q.rationale and q.task in TASKS and not TASKS[q.task].generated and q.task not in {*own_check, *programs}
    )
    contradicted = {i: verdict for i, verdict in _verdicts(grader, rationales) if verdict.status == "wrong"}
    for i, verdict in contradicted.items():
        text = f"wrong: it ends in {verdict.extracted!r}, but the answer is {kept[i].answer!r}"
        problems.append(Problem(kept[i].id, "rationale", text))
    return [q for i, q in enumerate(kept) if i not in contradicted], problems


def _verdicts(grader: Grader, asked: Iterable[tuple[int, Query, str]]) -> Iterator[tuple[int, Verdict]]:
    """Of (place, query, response) the verdicts in order, a few thousand under way at a time: futures of millions would fill the memory."""
    under_way: deque[tuple[int, Future[Verdict]]] = deque()
    for i, query, response in asked:
        under_way.append((i, grader.submit(query, response)))
        if len(under_way) >= UNDER_WAY:
            i, future = under_way.popleft()
            yield i, future.result()
    for i, future in under_way:
        yield i, future.result()


def _statements(query: Query, own_check: Collection[str]) -> Iterator[str]:
    spec = TASKS.get(query.task)
    if spec and spec.generated and query.rationale:
        yield query.rationale
        return
    if spec is None or query.task in own_check:
        yield query.answer
    yield f"The answer is {query.answer}"

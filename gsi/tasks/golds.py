"""The check of the reference answers: a query that does not hold against itself would burn its budget in every iteration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gsi.tasks import TASKS
from gsi.types import Grader, GsiError, Query, Verdict


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

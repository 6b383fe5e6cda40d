"""Grading programs: run in the sandbox, the answer graded by the task's own check."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

from gsi.types import GsiError, Query, Verdict
from gsi.verify.pool import GraderPool
from gsi.verify.printed import as_answer, is_full_float, same_value
from gsi.verify.program import Outcome, ProgramRunner, unfence
from gsi.verify.references import Reference


class ProgramGrader:
    """Grades responses of some tasks as programs; everything else, and the programs' answers, by `answers`. See `gsi.types.Grader`.

    A float that the check finds wrong may still be right by value (see `printed.py`), save in the tasks `own`, whose check is a user's.
    """

    def __init__(self, answers: GraderPool, tasks: Collection[str], runner: ProgramRunner, own: Collection[str] = ()):
        self._answers, self._tasks, self._runner, self._own = answers, frozenset(tasks), runner, frozenset(own)
        self._values = GraderPool({task: Reference(same_value.__module__, same_value.__name__) for task in tasks})
        self.isolated = runner.isolated

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        if query.task not in self._tasks:
            return self._answers.submit(query, response)
        done: Future[Verdict] = Future()

        def ran(inner: Future[Outcome]) -> None:
            outcome = inner.result()
            if outcome.kind == "timeout":
                done.set_result(Verdict("timeout", detail="timeout"))
            elif outcome.kind != "ok":
                done.set_result(Verdict("error", detail=outcome.kind))
            elif outcome.answer is None:
                done.set_result(Verdict("no_answer", detail="ok"))
            else:
                printed = outcome.answer
                first = self._answers.submit(query, as_answer(printed, query.answer))
                _then(first, done, lambda verdict: graded(verdict.result(), printed))

        def graded(verdict: Verdict, printed: str) -> None:
            verdict = replace(verdict, detail="ok") if verdict.status in ("correct", "wrong", "no_answer") else verdict
            if verdict.status == "wrong" and is_full_float(printed) and not query.options and query.task not in self._own:
                same = self._values.submit(query, printed)
                _then(same, done, lambda same: done.set_result(replace(verdict, status="correct") if same.result().correct else verdict))
            else:
                done.set_result(verdict)

        _then(self._runner.submit(unfence(response)), done, ran)
        return done

    def close(self) -> None:
        self._runner.close()
        self._values.close()
        self._answers.close()


def _then(first: Future[Any], done: Future[Verdict], function: Callable[[Future[Any]], None]) -> None:
    """Calls function when `first` is there. Whatever goes wrong on the way, `done` hears of it, so nobody waits for ever."""

    def call(first: Future[Any]) -> None:
        if done.cancelled():
            return
        try:
            function(first)
        except (CancelledError, GsiError) as e:
            done.set_result(Verdict("error", detail=f"crash: {e or 'the grader was closed'}"))
        except Exception as e:  # a bug of ours
            done.set_exception(e)

    first.add_done_callback(call)


def with_programs(
    answers: GraderPool,
    tasks: Collection[str],
    workers: int = 1,
    timeout: float = 5.0,
    allow_unisolated: bool = False,
    own: Collection[str] = (),
) -> GraderPool | ProgramGrader:
    """A grader that runs the responses of `tasks` as programs, at most `timeout` wall-clock seconds each; `answers` itself without such tasks.

    Args:
        own: tasks with a check of the user's own, which has the last word on a float.

    Raises GsiError where programs cannot be isolated, unless `allow_unisolated`; then `.isolated` is False.
    """
    return ProgramGrader(answers, tasks, ProgramRunner(workers, timeout, allow_unisolated), own) if tasks else answers

"""Answer checking: `grade` for one response, `make_grader` for a run. The rules are in each check's docstring."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gsi.lab.chain import check as check_chain
from gsi.lab.dag_check import check as check_dag
from gsi.lab.multiply_check import check as check_multiply
from gsi.types import GsiError, Query, Verdict
from gsi.verify.checks import check_auto, check_math, check_number, check_theoremqa
from gsi.verify.choices import check_choice
from gsi.verify.pool import Check, GraderPool
from gsi.verify.programs import with_programs
from gsi.verify.references import refer

__all__ = ["CHECKERS", "ONE_FORM", "GraderPool", "grade", "make_grader", "with_programs"]


CHECKERS: dict[str, Check] = {
    "gsm8k": check_number,
    "svamp": check_number,
    "math": check_math,
    "math500": check_math,
    "theoremqa": check_theoremqa,
    "aqua": check_choice,
    "mathqa": check_choice,
    "auto": check_auto,
    "chain": check_chain,
    "dag": check_dag,
    "dag_long": check_dag,
    "dag_joined": check_dag,
    "dag_spare": check_dag,
    "multiply": check_multiply,
    "multiply_long": check_multiply,
    "gsm_symbolic": check_number,
}

# Tasks whose check knows one form of answer; the others read it from text.
ONE_FORM = frozenset(task for task, check in CHECKERS.items() if check in (check_chain, check_dag, check_multiply))

# Tasks whose rationales are checked step by step -> whether words and units may stand in the equations (not in MATH, where letters are unknowns).
STEPS: dict[str, bool] = {"gsm8k": True, "svamp": True, "aqua": True, "mathqa": True, "math": False, "math500": False, "gsm_symbolic": True}

_shared: GraderPool | None = None
_lock = threading.Lock()


def grade(
    response: str, answer: str, task: str, options: Sequence[str] | None = None, question: str | None = None, marked: bool = False
) -> Verdict:
    """Checks one response against a reference answer.

    Args:
        task: one of CHECKERS; `auto` goes by the form of the answer.
        options: multiple choice, in the order A, B, C, ...
        question: lets `20%` count as 20 where a percentage is asked for, and a repeated question as no answer.
        marked: only a marked answer counts (`#### 7`, a box, `The answer is 7`), as `tasks[].marked`.

    Answers within about 5 seconds. Raises GsiError for an unknown task.
    """
    global _shared
    known(task)
    with _lock:
        if _shared is None:
            _shared = GraderPool(CHECKERS, steps=STEPS)
    return _shared.submit(
        Query("grade", task, question or "", answer, options=tuple(options) if options else None, marked=marked), response
    ).result()


def make_grader(
    checks: Mapping[str, str | Callable[..., Any] | None], workers: int = 1, timeout: float = 5.0, steps: bool = True
) -> GraderPool:
    """A grader for the tasks of a run.

    Args:
        checks: task name -> None (the check of that name), or a user's own check: `module:function`,
            `path/file.py:function` or a function, called in a worker as (response, query) -> bool or Verdict.
        timeout: wall-clock seconds per response.
        steps: whether verdicts say if the steps hold, where a task's own check can tell (half a millisecond per rationale).

    Raises GsiError for a task without a check and for a check that cannot be found.
    """
    found = {task: CHECKERS[known(task)] if check is None else refer(check) for task, check in checks.items()}
    return GraderPool(found, workers, timeout, {t: STEPS[t] for t, check in checks.items() if steps and check is None and t in STEPS})


def known(task: str) -> str:
    if task not in CHECKERS:
        raise GsiError(
            f"task {task!r}: no check of that name; use one of {', '.join(CHECKERS)}, or give your own as `check: file.py:function`"
        )
    return task

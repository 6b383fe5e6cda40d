"""Grading in other processes: the same verdicts as here, also when one of them dies; `make test-cluster` has the same on Ray."""

import os
import signal
from functools import partial
from pathlib import Path

import own_check
import pytest

from gsi.config.data import Grading
from gsi.engines.pool import Replicas
from gsi.engines.process import in_process
from gsi.spread import SpreadGrader, engine_of
from gsi.types import GsiError, Query
from gsi.verify import make_grader

CHECKS = {"gsm8k": None, "mine": f"{Path(own_check.__file__)}:hangs"}
SETTINGS = Grading(workers=1, timeout=10.0)


def spread(replicas, said=lambda text: None, made=None):
    """A grader over these makers; `made` gets the replicas once they are there."""

    def start():
        found = Replicas(replicas, said, "grader")
        if made is not None:
            made.append(found)
        return found

    return SpreadGrader(start, make_grader(CHECKS, timeout=10.0), CHECKS)


def test_the_same_verdicts_wherever_they_are_made_and_whoever_dies():
    queries = [Query(f"q{i}", ("gsm8k", "mine")[i % 2], f"{i} + {i}?", str(2 * i)) for i in range(60)]
    items = [(q, f"The answer is {q.answer}" if q.task == "gsm8k" else q.answer if i % 3 else "no") for i, q in enumerate(queries)]
    items[7] = (queries[7], "hang")
    said, made = [], []
    grader = spread([partial(in_process, partial(engine_of, CHECKS, (), SETTINGS), f"grader {i}", {}) for i in range(2)], said.append, made)
    local = make_grader(CHECKS, timeout=10.0)
    try:
        futures = [grader.submit(q, response) for q, response in items]
        futures[0].result(240)
        os.kill(made[0].engines[0].link.info.pid, signal.SIGKILL)
        assert [f.result(240) for f in futures] == [local.submit(q, response).result() for q, response in items]
        assert futures[7].result().status == "timeout"
        assert any("grader 0 of 2 is lost" in line and "graders left: 1" in line for line in said)
        with pytest.raises(GsiError, match="no check for task 'other'"):
            grader.submit(Query("q", "other", "?", "1"), "1")
    finally:
        grader.close()
        local.close()
    with pytest.raises(GsiError, match="closed"):
        grader.submit(*items[0])


def test_graders_that_cannot_start_end_the_run_with_their_reason():
    def refuse():
        raise GsiError("node 7 has no sandbox")

    grader = spread([refuse])
    with pytest.raises(GsiError, match="node 7 has no sandbox"):
        grader.submit(Query("q", "gsm8k", "?", "1"), "1").result(60)
    with pytest.raises(GsiError, match="node 7 has no sandbox"):
        grader.submit(Query("q", "gsm8k", "?", "1"), "1").result(60)
    grader.close()

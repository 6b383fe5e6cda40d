"""Grading on a Ray cluster: actors that each hold a grader of its own node, behind one queue, as engines are (`gsi/engines/pool.py`).

What an actor holds is what the driver would have held: cheap checks in its process, everything else and programs in worker processes
that are killed when late. The driver sends responses and gets verdicts. An actor that dies, alone or with its node, is started
again by Ray; until then the others grade what it held.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from gsi.config.data import Grading
from gsi.config.engines import RayEngine
from gsi.engines.pool import complain
from gsi.types import Grader, GsiError, Query, Verdict, Workload
from gsi.verify import make_grader, with_programs
from gsi.verify.references import refer

PER_WORKER = 32  # responses that an actor holds for each of its processes, so that cheap ones come and go in numbers


@dataclass(frozen=True)
class Item:
    """A response on its way; what a Request is to an engine."""

    key: int
    query: Query
    response: str


class GradingEngine:
    """In the actor: runs a grader as engines are run. `most`: items it holds at a time."""

    capabilities: frozenset[str] = frozenset()

    def __init__(self, grader: Grader, most: int):
        self._grader, self._most = grader, most

    def run(self, work: Workload) -> None:
        inner: Any = work  # of Items and Verdicts
        graded: queue.SimpleQueue[tuple[Item, Future[Verdict]]] = queue.SimpleQueue()
        held, more = 0, True
        while more or held:
            if more and held < self._most:
                taken = inner.take(self._most - held, 0.0 if held else 0.05)
                more = taken is not None
                held += len(taken or ())
                for item in taken or ():
                    self._grader.submit(item.query, item.response).add_done_callback(functools.partial(_note, graded, item))
            wait = 0.02  # how long new items may lie while old ones are graded
            while held:
                try:
                    item, done = graded.get(timeout=wait)
                except queue.Empty:
                    break
                inner.put(item, done.result())
                held, wait = held - 1, 0.0

    def close(self) -> None:
        self._grader.close()


def _note(graded: queue.SimpleQueue[tuple[Item, Future[Verdict]]], item: Item, done: Future[Verdict]) -> None:
    graded.put((item, done))


def engine_of(checks: Mapping[str, str | None], programs: Collection[str], settings: Grading) -> GradingEngine:
    """In the actor: a grader as a run on one machine has it."""
    answers = make_grader(checks, settings.workers, settings.timeout)
    own = {name for name, check in checks.items() if check}
    grader = with_programs(answers, programs, settings.workers, settings.timeout, settings.allow_unisolated_programs, own)
    return GradingEngine(grader, PER_WORKER * settings.workers)


class SpreadGrader:
    """A Grader whose work is done by `replicas()`, which is called when the first response comes and may take its time.

    `local` is the driver's own; it says whether programs are isolated, and knows the tasks.
    """

    def __init__(self, replicas: Callable[[], Any], local: Grader, tasks: Collection[str]):
        self._replicas, self._local, self._tasks = replicas, local, frozenset(tasks)
        self.isolated = getattr(local, "isolated", None)
        self._changed = threading.Condition()
        self._ready: deque[Item] = deque()
        self._waiting: dict[int, Future[Verdict]] = {}
        self._count, self._closed = 0, False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        done: Future[Verdict] = Future()
        if query.task not in self._tasks:
            raise GsiError(f"query {query.id}: no check for task {query.task!r}; there are {', '.join(sorted(self._tasks))}")
        with self._changed:
            if self._closed:
                raise GsiError("the grader is closed")
            if self._error:
                done.set_exception(self._error)
                return done
            self._waiting[self._count] = done
            self._ready.append(Item(self._count, query, response))
            self._count += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="grading", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return done

    def close(self) -> None:
        """What is in flight becomes an `error` verdict."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            waiting, self._waiting = list(self._waiting.values()), {}
            self._changed.notify_all()
        for done in waiting:
            done.set_result(Verdict("error", detail="the grader was closed"))
        if self._thread:
            self._thread.join()
        self._local.close()

    def _work(self) -> None:
        try:
            replicas = self._replicas()
            try:
                replicas.run(self)
            finally:
                replicas.close()
        except BaseException as e:  # handed to whoever waits for a verdict, which ends the run
            with self._changed:
                self._error = e
                waiting, self._waiting = list(self._waiting.values()), {}
            for done in waiting:
                done.set_exception(e)

    # ----------------------------------------------------------------------------------- the workload of the replicas

    def take(self, n: int, timeout: float = 0.0) -> list[Any] | None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._ready:
                left = deadline - time.monotonic()
                if self._closed:
                    return None
                if left <= 0 or not self._changed.wait(left):
                    return []
            return [self._ready.popleft() for _ in range(min(n, len(self._ready)))]

    def put(self, item: Any, verdict: Any) -> None:
        with self._changed:
            done = self._waiting.pop(item.key, None)
        if done is not None and not done.cancelled():
            done.set_result(verdict)


def spread(
    settings: RayEngine,
    grading: Grading,
    checks: Mapping[str, Any],
    programs: Collection[str],
    local: Grader,
    say: Callable[[str], None] = complain,
) -> Grader:
    """The grader of a run on a cluster: `grading.actors` of them, null = one for each node that has processors, 0 = the driver's own."""
    if grading.actors == 0:
        return local
    named = {task: str(refer(check)) if check else None for task, check in checks.items()}
    make = functools.partial(engine_of, named, frozenset(programs), grading)
    return SpreadGrader(functools.partial(_actors, settings, grading.actors, make, say), local, named)


def _actors(settings: RayEngine, actors: int | None, make: Callable[[], Any], say: Callable[[str], None]) -> Any:
    from gsi.engines.cluster import connect, ray_replicas, workers

    if actors is None:
        actors = max(1, len(workers(connect(settings.address))))
    # they hold no resources: engines may have taken all, and between two answers an actor does nothing
    return ray_replicas(settings.model_copy(update={"replicas": actors, "resources": {}}), make, say, "grader")

"""Sampling: where allocation, guidance, engine and grader meet.

`Sampler` is the workload of an engine. The engine takes requests and puts completions; one scheduler thread grades them
(or hands them to grading workers), commits them to the ledger and only then decides what each query does next. So
whatever a decision rests on is on disk, and a killed run decides the same again.

A query's next attempts depend only on its own graded attempts, in attempt order: attempt n is looked at only after
attempts 0..n-1. Completion order, batch composition and the number of engines play no part.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gsi.attempts import Attempts
from gsi.ledger import Ledger
from gsi.prompts import Renderer
from gsi.recording import asking
from gsi.types import Allocation, Completion, Grader, Guidance, Hint, Plan, Query, Request, Rollout, Sampling, Stop, Text, Verdict

MAX_BACKLOG = 1024  # completions that wait to be graded or committed


@dataclass
class Stats:
    """Live figures of one sampling pass (this process only; the ledger holds the truth)."""

    queries: int  # to be sampled
    finished: int = 0  # queries that need nothing more
    covered: int = 0  # queries with an accepted attempt
    rollouts: int = 0
    accepted: int = 0
    tokens: int = 0  # generated
    resumed: int = 0  # rollouts found in the ledger
    all_tokens: int = 0  # generated, of finished queries, resumed rollouts included
    wasted: int = 0  # of those, in attempts that a scheduler of the same rule, drawing one by one, would not have launched


@dataclass
class _Progress:
    """A query being worked on."""

    query: Query
    order: int
    prompt: Text
    history: list[Rollout] = field(default_factory=list)  # graded attempts 0..n-1
    ahead: dict[int, Rollout] = field(default_factory=dict)  # graded or resumed attempts beyond those
    planned: int = 0  # attempts launched or found
    guided: int = 0  # of those, guided
    needed: int | None = None  # attempts after which the allocation first wanted no more


class Sampler:
    """A Workload over queries. Use as a context manager around `Engine.run`.

    Args:
        queries: who may be sampled, in order; earlier queries are finished first.
        renderer, iteration, sampling, seed, strategy, model, shuffle, split: see `Attempts`.
        hint_workers: threads for a guidance that may block (a teacher); 0 = guidance is called in place.
        on_progress: called with Stats after every commit.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        *,
        iteration: int,
        allocation: Allocation,
        guidance: Guidance | None,
        renderer: Renderer,
        grader: Grader,
        ledger: Ledger,
        sampling: Callable[[int], Sampling],
        seed: int,
        strategy: str,
        model: str,
        accept: str = "answer",
        shuffle: Collection[str] = (),
        split: str | None = None,
        hint_workers: int = 0,
        on_progress: Callable[[Stats], None] | None = None,
    ):
        self.queries, self.iteration, self.allocation, self.guidance = queries, iteration, allocation, guidance
        self.grader, self.ledger, self.accept, self.split = grader, ledger, accept, split
        self.attempts = Attempts(renderer, iteration, sampling, seed, strategy, model, frozenset(shuffle), split)
        self.on_progress = on_progress
        self.stats = Stats(len(queries))
        self._resuming = ledger.count(iteration, split) > 0
        self._next = 0  # the next query to open
        self._open: dict[str, _Progress] = {}
        self._ready: list[tuple[int, int, Request]] = []  # heap: (query order, attempt)
        self._changed = threading.Condition(threading.RLock())
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._stopped = False
        self._hints = ThreadPoolExecutor(hint_workers, "hint") if hint_workers and guidance else None
        self._grading = 0  # completions with a worker process
        self._thread = threading.Thread(target=self._schedule, name="scheduler", daemon=True)

    # ----------------------------------------------------------------------------------- the engine's side

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._error:
                    raise self._error
                if self._stopped:
                    raise Stop
                # an engine that outruns grading gets no new queries, so that memory does not grow with their number
                while len(self._ready) < n and self._next < len(self.queries) and self._inbox.qsize() + self._grading < MAX_BACKLOG:
                    self._open_next()
                if self._ready:
                    return [heapq.heappop(self._ready)[2] for _ in range(min(n, len(self._ready)))]
                if not self._open and self._next == len(self.queries):
                    return None
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return []

    def put(self, request: Request, completion: Completion) -> None:
        if self._error and not self._thread.is_alive():  # nothing can be stored any more; any other error is `take`'s to tell
            raise self._error
        self._inbox.put(("completion", request, completion))

    def stop(self) -> None:
        """Makes the engine abandon what is in flight at its next `take`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        # what the engine has handed over is paid for: grade and store it, also when the engine or a hint failed
        self._inbox.put(None)
        self._thread.join()
        if self._hints:
            self._hints.shutdown(wait=True, cancel_futures=True)
        if self._error and kind is None:
            raise self._error

    # ----------------------------------------------------------------------------------- the scheduler thread

    def _schedule(self) -> None:
        """Drains the inbox: grade, commit everything that is graded in one transaction, then decide.

        After an error nothing is decided any more, and what the engine has handed over is still stored; only one of the ledger ends this.
        """
        closing = False
        with self._failing():
            while not (closing and self._inbox.empty() and self._grading == 0):
                events = [self._inbox.get()]
                while not self._inbox.empty():
                    events.append(self._inbox.get())
                rows: list[Rollout] = []
                for event in events:
                    if event is None:
                        closing = True
                        continue
                    with self._failing():
                        self._handle(event, rows)
                if rows:
                    self.ledger.add(rows, self.split)
                    with self._failing():
                        self._record(rows, decide=not closing and not self._error)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """An error is kept, the first of them, and raised in the engine's thread."""
        try:
            yield
        except BaseException as e:
            with self._changed:
                self._error = self._error or e
                self._changed.notify_all()
            if self._hints:  # those still to be made: nobody would draw with them
                self._hints.shutdown(wait=False, cancel_futures=True)

    def _handle(self, event: Any, rows: list[Rollout]) -> None:
        if event[0] == "completion":
            self._grade(event[1], event[2], rows)
        elif event[0] == "verdict":
            self._grading -= 1
            request, completion, verdict = event[1:]
            rows.append(self._rollout(request, completion, verdict.result()))
        elif event[0] == "hint":
            self._launch(event[1], event[2], event[3].result())

    def _grade(self, request: Request, completion: Completion, rows: list[Rollout]) -> None:
        if completion.finish_reason != "stop":  # no whole response
            rows.append(self._rollout(request, completion, Verdict("error", detail=completion.detail)))
            return
        verdict = self.grader.submit(request.query, request.given.text + completion.text)
        if verdict.done():
            rows.append(self._rollout(request, completion, verdict.result()))
            return
        self._grading += 1
        verdict.add_done_callback(lambda done: self._inbox.put(("verdict", request, completion, done)))

    def _rollout(self, request: Request, completion: Completion, verdict: Verdict) -> Rollout:
        return self.attempts.rollout(self._open[request.query.id].query, request, completion, verdict)

    def _record(self, rows: list[Rollout], decide: bool) -> None:
        with self._changed:
            for row in rows:
                progress = self._open[row.query_id]
                progress.ahead[row.attempt] = row
                self.stats.rollouts += 1
                self.stats.tokens += row.generated_tokens
                self.stats.accepted += row.accepted(self.accept)
            if decide:
                for query_id in dict.fromkeys(row.query_id for row in rows):
                    self._advance(self._open[query_id])
            self._changed.notify_all()
        if self.on_progress:
            self.on_progress(self.stats)

    # ----------------------------------------------------------------------------------- decisions (under the lock)

    def _open_next(self) -> None:
        query = self.queries[self._next]
        progress = _Progress(query, self._next, self.attempts.prompt(query))
        if self._resuming:
            progress.ahead = {r.attempt: r for r in self.ledger.attempts(query.id, self.iteration, self.split)}
            self.stats.resumed += len(progress.ahead)
            self.stats.accepted += sum(r.accepted(self.accept) for r in progress.ahead.values())
        self._open[query.id] = progress
        self._next += 1
        self._advance(progress)

    def _advance(self, p: _Progress) -> None:
        """Asks the allocation at every length of the graded history, one after the other, and launches what it wants."""
        while True:
            plan = self._plan(p)
            if p.needed is None and plan.total <= len(p.history):
                p.needed = len(p.history)
            for attempt in range(p.planned, plan.total):
                index = p.guided if plan.guided and self.guidance else None
                p.guided += index is not None
                p.planned += 1
                if attempt not in p.ahead:
                    self._ask(p, attempt, index)
            if len(p.history) not in p.ahead:
                break
            p.history.append(p.ahead.pop(len(p.history)))
        if len(p.history) >= p.planned:
            del self._open[p.query.id]
            self.stats.finished += 1
            self.stats.covered += any(r.accepted(self.accept) for r in p.history)
            self.stats.all_tokens += sum(r.generated_tokens for r in p.history)
            self.stats.wasted += sum(r.generated_tokens for r in p.history[p.needed :])

    def _plan(self, p: _Progress) -> Plan:
        if any(r.status == "too_long" and not r.guided for r in p.history):
            return Plan(p.planned)  # the plain prompt does not fit: more of the same would not either
        return self.allocation.plan(p.query, p.history)

    def _ask(self, p: _Progress, attempt: int, index: int | None) -> None:
        if index is None or self.guidance is None:
            self._launch(p, attempt, None)
        elif self._hints:
            future: Future[Hint | None] = self._hints.submit(self._hint, p.query, tuple(p.history), attempt, index)
            future.add_done_callback(lambda done: None if _abandoned(done) else self._inbox.put(("hint", p, attempt, done)))
        else:
            self._launch(p, attempt, self.guidance.hint(p.query, p.history, index))

    def _hint(self, query: Query, history: Sequence[Rollout], attempt: int, index: int) -> Hint | None:
        assert self.guidance is not None
        asking.key = (query.id, self.iteration, attempt)
        return self.guidance.hint(query, history, index)

    def _launch(self, p: _Progress, attempt: int, hint: Hint | None) -> None:
        request = self.attempts.request(p.query, p.prompt, attempt, hint)
        with self._changed:
            heapq.heappush(self._ready, (p.order, attempt, request))
            self._changed.notify_all()


def _abandoned(hint: Future[Hint | None]) -> bool:
    """A hint that was not made because the engine ended first: its attempt is drawn when the run resumes."""
    return hint.cancelled() or isinstance(hint.exception(), CancelledError)

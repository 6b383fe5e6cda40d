"""Grading that cannot hang or crash the run: cheap checks inline, everything else in worker processes that are killed when late.

pebble runs the workers. They are spawned, so threads of the parent do no harm, lazily, and never load torch.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing.context
import resource
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from gsi.types import GsiError, Query, Verdict
from gsi.verify import references
from gsi.verify.checks import Symbolic, decide
from gsi.verify.latex import normal
from gsi.verify.references import Reference, load_within
from gsi.verify.steps import check_steps
from gsi.verify.tidy import MAX_CHARS

PIPE = 5000  # characters that go through the pipe to a worker, which holds 64 KiB; more goes through a file
LONG = 6000  # characters; a longer response is read in a worker, where it can be stopped

Check = Callable[[str, Query], Any]  # -> Verdict, or Symbolic for a worker


@dataclass(frozen=True)
class Parcel:
    """A response and its query in a file, where they are too long for the pipe to a worker: a write that waits for one that died never ends."""

    path: str

    @classmethod
    def of(cls, response: str, query: Query, done: Future[Verdict]) -> tuple[str, Query | Parcel]:
        """(response, query) as they are, or ("", the file they are in); it is removed when the verdict is there."""
        if len(response) + sum(len(t or "") for t in (query.question, query.answer, query.rationale, *(query.options or ()))) <= PIPE:
            return response, query
        handle, path = tempfile.mkstemp(prefix="gsi-grade-", suffix=".json")
        with open(handle, "w", encoding="ascii") as f:
            json.dump([response, asdict(query)], f)
        done.add_done_callback(lambda _: Path(path).unlink(missing_ok=True))
        return "", cls(path)

    def unpacked(self) -> tuple[str, Query]:
        response, query = json.loads(Path(self.path).read_text(encoding="ascii"))
        return response, Query(**query | {"options": query["options"] and tuple(query["options"])})


def run_user_check(reference: Reference, response: str, query: Query | Parcel) -> Verdict | GsiError:
    """Runs in a worker. A GsiError, where the check could not be loaded there, is about no item."""
    check = _LOADED[reference]
    if isinstance(check, GsiError):
        return check
    if isinstance(query, Parcel):
        response, query = query.unpacked()
    try:
        result = check(response, query)
    except BaseException as e:  # as text: the parent may not know its class, and SystemExit would end the thread that listens to workers
        return Verdict("error", detail=f"{reference}: {type(e).__name__}: {e}")
    if isinstance(result, Verdict):
        return result
    if isinstance(result, bool):
        return Verdict("correct" if result else "wrong")
    return Verdict("error", detail=f"check {reference} returned {type(result).__name__}, expected bool or Verdict")


def run_check(check: Check, response: str, query: Query | Parcel, words: bool | None) -> Verdict:
    """Runs in a worker: a long response, on which some pattern might take for ever, with all that follows from it."""
    if isinstance(query, Parcel):
        response, query = query.unpacked()
    found = check(response, query)
    verdict: Verdict = run_symbolic(found) if isinstance(found, Symbolic) else found
    return verdict if words is None or verdict.steps_ok is not None else replace(verdict, steps_ok=check_steps(response, words))


def run_symbolic(job: Symbolic) -> Verdict:
    """Runs in a worker, within 2 GiB: a power tower ends as MemoryError, an `error` verdict, not in the machine's swap."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30 if hard == resource.RLIM_INFINITY else min(2 << 30, hard), hard))
    try:
        return decide(job)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


_LOADED: dict[Reference, Callable[[str, Query], Any] | GsiError] = {}  # of a worker


def _warm_up(references: Collection[Reference], seconds: float) -> None:
    """Makes a comparison and loads the users' checks, so that loading what a first item needs does not count against its time."""
    decide(Symbolic("x + 1", r"\frac{x^2 - 1}{x - 1}"))
    for reference in references:
        _LOADED[reference] = load_within(reference, seconds)


class _Process(multiprocessing.context.SpawnProcess):
    def start(self) -> None:
        with _hidden_main():
            super().start()


class _Spawn(multiprocessing.context.SpawnContext):
    Process = _Process


_MAIN = threading.Lock()


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Keeps a spawned worker from importing the parent's main script again, which would rerun scripts without a main guard."""
    main = sys.modules["__main__"]
    with _MAIN:
        kept: dict[str, Any] = {k: main.__dict__.pop(k) for k in ("__file__", "__spec__") if k in main.__dict__}
        main.__spec__ = None
        try:
            yield
        finally:
            main.__dict__.update(kept)


NO_STEPS: Mapping[str, bool] = {}


class _Known:
    """Verdicts of comparisons that were made, by (task, gold, normalised answer); the oldest go first. Thread-safe."""

    def __init__(self, most: int = 20_000):
        self._verdicts: OrderedDict[tuple[str, str, str], Verdict] = OrderedDict()
        self._most, self._lock = most, threading.Lock()

    def get(self, key: tuple[str, str, str]) -> Verdict | None:
        with self._lock:
            return self._verdicts.get(key)

    def put(self, key: tuple[str, str, str], verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[key] = verdict
            if len(self._verdicts) > self._most:
                self._verdicts.popitem(last=False)


class GraderPool:
    """Grades responses of the tasks in `checks`; see `gsi.types.Grader`.

    Args:
        checks: task name -> a function of ours, run inline, or a `Reference` to a user's, run in a worker.
        workers: processes, started when first needed.
        timeout: wall-clock seconds per item; then the verdict is `timeout`.
        steps: tasks whose responses also get `steps_ok` -> whether words and units may stand in their equations.

    Of a response longer than 20,000 characters only the last 20,000 are graded. A user's check that a worker cannot load is a
    GsiError of every future that needs it.
    """

    def __init__(
        self, checks: Mapping[str, Check | Reference], workers: int = 1, timeout: float = 5.0, steps: Mapping[str, bool] = NO_STEPS
    ):
        self._steps, self._known = steps, _Known()
        self._checks, self._workers, self._timeout = dict(checks), workers, timeout
        self._references = tuple({c for c in self._checks.values() if isinstance(c, Reference)})
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: set[Future[Verdict]] = set()

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        """A future of the verdict, already done unless a worker is needed. Raises GsiError for a task without a check."""
        done: Future[Verdict] = Future()
        if query.task not in self._checks:
            raise GsiError(f"query {query.id}: no check for task {query.task!r}; there are {', '.join(sorted(self._checks))}")
        check, response = self._checks[query.task], response[-MAX_CHARS:]
        if isinstance(check, Reference):
            self._send(done, run_user_check, (check, *Parcel.of(response, query, done)), str(check))
            return done
        if len(response) > LONG:
            words = self._steps.get(query.task)
            self._send(
                done,
                run_check,
                (check, *Parcel.of(response, query, done), words),
                f"{query.task}: a response of {len(response)} characters",
            )
            return done
        try:
            found = check(response, query)
        except Exception as e:  # a defect of ours on one odd input is that item's verdict, not the end of the run
            done.set_result(Verdict("error", detail=f"{query.task}: {type(e).__name__}: {e}"))
            return done
        if not isinstance(found, Symbolic):
            done.set_result(self._with_steps(query.task, response, found))
            return done
        key = (query.task, found.gold, normal(found.got))
        if (known := self._known.get(key)) is not None:
            done.set_result(self._with_steps(query.task, response, replace(known, extracted=found.got)))
            return done
        compared: Future[Verdict] = Future()

        def settle(compared: Future[Verdict]) -> None:
            verdict = compared.result()
            if verdict.status in ("correct", "wrong"):
                self._known.put(key, verdict)
            if not done.cancelled():
                done.set_result(self._with_steps(query.task, response, verdict))

        compared.add_done_callback(settle)
        self._send(compared, run_symbolic, (found,), f"comparing {found.got[:80]!r} with {found.gold[:80]!r}")
        return done

    def _with_steps(self, task: str, response: str, verdict: Verdict) -> Verdict:
        if task not in self._steps or verdict.steps_ok is not None:
            return verdict
        return replace(verdict, steps_ok=check_steps(response, self._steps[task]))

    def close(self) -> None:
        """Ends the workers; what is still in flight becomes an `error` verdict."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            waiting = list(self._waiting)
        if pool is not None:
            pool.stop()
            pool.join()
        for done in waiting:  # pebble leaves these open
            self._settle(done, Verdict("error", detail="the grader was closed"))

    def _send(
        self, done: Future[Verdict], function: Callable[..., Verdict | GsiError], args: tuple[Any, ...], what: str, tries: int = 3
    ) -> None:
        try:
            with self._lock:
                if self._closed:
                    raise GsiError("the grader is closed")
                if self._pool is None or not self._pool.active:
                    self._pool = ProcessPool(
                        max_workers=self._workers, initializer=_warm_up, initargs=(self._references, references.LOADING), context=_Spawn()
                    )
                self._waiting.add(done)
                inner = self._pool.schedule(function, args=args, timeout=self._timeout)
        except RuntimeError as e:  # it broke between the two lines above
            self._settle(done, Verdict("error", detail=f"{what}: {e}"))
            return

        def finish(inner: Future[Verdict | GsiError]) -> None:
            try:
                verdict = inner.result()
            except TimeoutError:
                verdict = Verdict("timeout", detail=f"{what}: longer than {self._timeout:g} s")
            except ProcessExpired as e:
                verdict = Verdict("error", detail=f"{what}: the worker died with exit code {e.exitcode}")
            except BrokenProcessPool as e:
                if tries > 1:  # a worker that dies idle breaks the whole pool of pebble: the item was not at fault
                    return self._send(done, function, args, what, tries - 1)
                verdict = Verdict("error", detail=f"{what}: workers cannot start or keep dying: {e}")
            except CancelledError:
                verdict = Verdict("error", detail=f"{what}: the grader was closed")
            except Exception as e:  # code of ours raised it in the worker
                verdict = Verdict("error", detail=f"{what}: {type(e).__name__}: {e}")
            self._settle(done, verdict)

        inner.add_done_callback(finish)

    def _settle(self, done: Future[Verdict], verdict: Verdict | GsiError) -> None:
        with self._lock:
            waits = done in self._waiting
            self._waiting.discard(done)
        if not waits or done.cancelled():
            return
        if isinstance(verdict, GsiError):
            done.set_exception(verdict)
        else:
            done.set_result(verdict)

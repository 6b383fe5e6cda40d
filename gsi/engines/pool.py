"""Several engines behind one queue: replicas of a model on the GPUs of a machine, several servers, actors on a cluster.

Every engine runs in a thread of its own and pulls work when it has room, so a fast one does more, and a query that has
enough stops at once everywhere. When what an engine runs on is gone (`EngineLost`), its requests go to the others, with
the seeds they had. Which engine draws a request changes nothing but the time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gsi.types import Completion, EngineLost, Query, Request, Stop, Text, Workload

AHEAD = 32  # requests taken beyond what was asked for, to keep attempts that share a prompt on one engine
CHUNK = 64  # pairs scored in one call


class Pool:
    """A workload shared by several engines, by number. It knows what each of them holds, so that others can take it over."""

    def __init__(self, work: Workload, engines: int):
        self.work = work
        self.error: BaseException | None = None  # of the workload or of an engine: ends the run everywhere
        self._changed = threading.Condition()
        self._front: deque[Request] = deque()  # to be drawn by anyone: taken ahead, or given back
        self._ahead: list[deque[Request]] = [deque() for _ in range(engines)]  # meant for one engine, which has their prompt
        self._out: list[dict[int, Request]] = [{} for _ in range(engines)]  # by id(): engines hand back the object they took
        self._taking, self._exhausted = 0, False

    def take(self, i: int, n: int, timeout: float) -> list[Request] | None:
        """`Workload.take` for engine i. None only when nothing is under way anywhere, since an engine may be lost until then."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                if self.error:
                    raise Stop
                elsewhere = next((a for a in self._ahead if a), None)
                if taken := self._hand_out(i, n):
                    return taken
                if self._exhausted:
                    if elsewhere:
                        return self._hand_out(i, n, elsewhere)
                    if not self._taking and not any(self._out):
                        self._changed.notify_all()
                        return None
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        return []
                    continue
                self._taking += 1
            new: list[Request] | None = []
            try:
                new = self.work.take(n + AHEAD if n else 0, 0.0 if elsewhere else max(0.0, deadline - time.monotonic()))
            except BaseException as e:
                self.fail(e)
                raise
            finally:
                with self._changed:
                    self._taking -= 1
                    self._exhausted |= new is None
                    self._front.extend(new or ())
                    self._changed.notify_all()
            if new is not None:
                with self._changed:
                    return self._hand_out(i, n, *self._ahead)

    def put(self, i: int, request: Request, completion: Completion) -> None:
        """`Workload.put` for engine i. What is finished is paid for and handed over, whatever became of the others: that is `take`'s to tell."""
        try:
            self.work.put(request, completion)
        except BaseException as e:
            self.fail(e)
            raise
        with self._changed:
            del self._out[i][id(request)]
            if self._exhausted:
                self._changed.notify_all()

    def give_back(self, i: int) -> int:
        """Engine i is gone, or ends: what it held is there for the others. Returns how many requests that is."""
        with self._changed:
            held = [*self._out[i].values(), *self._ahead[i]]
            self._front.extendleft(reversed(held))
            self._out[i].clear()
            self._ahead[i].clear()
            self._changed.notify_all()
        return len(held)

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def _hand_out(self, i: int, n: int, *others: deque[Request]) -> list[Request]:
        """Up to n requests: those meant for engine i, then anyone's, then others'. Under the lock."""
        taken: list[Request] = []
        for source in (self._ahead[i], self._front, *others):
            while source and len(taken) < n:
                taken.append(source.popleft())
        while taken and self._front and self._front[0].query.id == taken[-1].query.id:  # attempts at one query share its prompt
            self._ahead[i].append(self._front.popleft())
        self._out[i].update((id(r), r) for r in taken)
        return taken


class Share:
    """Engine i's side of a pool: the workload that it runs."""

    def __init__(self, pool: Pool, i: int):
        self.pool, self.i = pool, i

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        return self.pool.take(self.i, n, timeout)

    def put(self, request: Request, completion: Completion) -> None:
        self.pool.put(self.i, request, completion)


def complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Replicas:
    """Runs requests on several engines of one model, made side by side by `makers`.

    `capabilities` are those that all have, `stats` are summed. An engine that is lost is left out from then on, unless its
    `restart()` says that it comes back: then it is run again, and waits until it is there. Raises EngineLost when all are lost.

    Args:
        makers: functions that each make one engine; they run at once.
        say: gets a line when an engine is lost.
        what: what one of them is called there.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], say: Callable[[str], None] = complain, what: str = "replica"):
        self.say, self.what = say, what
        self.engines: list[Any] = []
        self._lost: dict[int, EngineLost] = {}
        with ThreadPoolExecutor(len(makers), "replica") as pool:
            made = [pool.submit(maker) for maker in makers]
        self.engines = [f.result() for f in made if not f.exception()]
        if error := next((e for f in made if (e := f.exception())), None):
            self.close()
            raise error
        self.capabilities: frozenset[str] = frozenset.intersection(*(e.capabilities for e in self.engines))
        first = self.engines[0]
        self.parameters: int = getattr(first, "parameters", 0)
        self.stop_ids: frozenset[int] = getattr(first, "stop_ids", frozenset())
        contexts = [e.context for e in self.engines if getattr(e, "context", None)]
        self.context: int | None = min(contexts, default=None)

    @property
    def stats(self) -> dict[str, float]:
        total: Counter[str] = Counter()
        for engine in self.engines:
            total.update(getattr(engine, "stats", {}))
        return dict(total)

    def run(self, work: Workload) -> None:
        self._spread(Pool(work, len(self.engines)), lambda engine, share: engine.run(share))

    def score(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        return self._apply("score", pairs)

    def entropies(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        return self._apply("entropies", pairs)

    def close(self) -> None:
        with ThreadPoolExecutor(max(1, len(self.engines)), "close") as pool:
            closed = [pool.submit(engine.close) for engine in self.engines]
        for f in closed:
            f.result()

    def _apply(self, name: str, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        """`name` of every pair, in chunks that the engines take as they have time."""
        chunks = _Chunks(pairs)

        def work_off(engine: Any, share: Share) -> None:
            if (wait := getattr(engine, "wait", None)) and not wait(share):
                return
            while (taken := share.take(1, 0.2)) is not None:
                for chunk in taken:
                    share.put(chunk, getattr(engine, name)(chunk.pairs))  # type: ignore[attr-defined]

        self._spread(Pool(chunks, len(self.engines)), work_off)
        return [value for _, values in sorted(chunks.done.items()) for value in values]

    def _spread(self, pool: Pool, run: Callable[[Any, Share], None]) -> None:
        """Runs every engine on its share, each in a thread; raises what ended the run."""
        threads = [
            threading.Thread(target=self._drive, args=(i, pool, run), name=f"replica-{i}", daemon=True)
            for i in range(len(self.engines))
            if i not in self._lost
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as e:  # Ctrl-C
            pool.fail(e)
            for thread in threads:
                thread.join()
            raise
        if pool.error:
            raise pool.error
        if len(self._lost) == len(self.engines):
            raise list(self._lost.values())[-1]

    def _drive(self, i: int, pool: Pool, run: Callable[[Any, Share], None]) -> None:
        engine = self.engines[i]
        while True:
            try:
                run(engine, Share(pool, i))
                if held := pool.give_back(i):  # else the others would wait for it for ever
                    raise RuntimeError(f"replica {i} ended and left {held} requests unanswered")
                return None
            except EngineLost as e:
                held, restart = pool.give_back(i), getattr(engine, "restart", None)
                back = restart is not None and restart()
                if not back:
                    self._lost[i] = e
                if pool.error:
                    return None
                rest = len(self.engines) - len(self._lost)
                if back or rest:
                    others = "it starts again" if back else f"{self.what}s left: {rest}"
                    self.say(f"{self.what} {i} of {len(self.engines)} is lost, its {held} requests go to others ({others}): {e}")
                if not back:
                    return None
            except BaseException as e:
                return pool.fail(e)


class _Chunks:
    """Pairs to be scored as a workload, so that a lost engine's chunk goes to another."""

    def __init__(self, pairs: Sequence[tuple[Text, Completion]]):
        self._rest = deque(_Chunk(at, pairs[at : at + CHUNK]) for at in range(0, len(pairs), CHUNK))
        self.done: dict[int, list[list[float]]] = {}

    def take(self, n: int, timeout: float = 0.0) -> list[Any] | None:
        return [self._rest.popleft()] if self._rest else None

    def put(self, chunk: Any, values: Any) -> None:
        self.done[chunk.at] = values


class _Chunk:
    def __init__(self, at: int, pairs: Sequence[tuple[Text, Completion]]):
        self.at, self.pairs = at, pairs
        self.query = Query(str(at), "", "", "")  # a pool asks what belongs together

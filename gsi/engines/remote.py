"""An engine in another process: `Host` holds it there, `RemoteEngine` runs it from here.

What goes between them is one call, `exchange`: requests there, finished completions and the room left back. The call
waits there until there is something to say, so an engine that is busy costs a few calls a second, however many
requests it completes.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gsi
from gsi.types import Completion, Engine, EngineLost, GsiError, Request, Stop, Text, Workload

WAIT = 0.5  # seconds an exchange waits for news, and a Stop is heard of at the latest
LOOK = 0.05  # likewise while the engine has room that nothing was ready for; longer where responses are long
GATHER = 0.01  # seconds that further completions are waited for, once there is one; longer where the engine has more to begin with
PART = 1 / 16  # so much of the time that a response takes is "longer"


@dataclass(frozen=True)
class Info:
    """What is known of an engine once it is there."""

    capabilities: frozenset[str]
    context: int | None
    parameters: int
    stop_ids: frozenset[int]
    version: str  # of this package, there
    pid: int
    node: str = ""


@dataclass
class Reply:
    done: list[tuple[int, Completion]] = field(default_factory=list)
    room: int = 0  # requests that the engine would take now
    takes: float = 0.0  # seconds that a response takes
    ended: bool = False  # Engine.run has returned or raised
    stats: dict[str, float] = field(default_factory=dict)
    error: tuple[str, str] | None = None  # of Engine.run: `gsi`, `lost` or `other`, and its message


class Host:
    """The other side: holds an engine, and runs it in a thread on the requests that come.

    Its methods are called from several threads.
    """

    def __init__(self, node: str = ""):
        self._node = node
        self._engine: Any = None
        self._building = threading.Lock()
        self._inbox: _Inbox | None = None
        self._number = -1

    def ready(self, make: Callable[[], Engine]) -> Info:
        """Makes the engine where that has not been done. Raises what its constructor raises."""
        import os

        with self._building:
            if self._engine is None:
                self._engine = make()
        e = self._engine
        context, stop_ids = getattr(e, "context", None), frozenset(getattr(e, "stop_ids", ()))
        return Info(e.capabilities, context, getattr(e, "parameters", 0), stop_ids, gsi.__version__, os.getpid(), self._node)

    def exchange(self, number: int, requests: Sequence[tuple[int, Request]], more: bool, wait: float, room_matters: bool) -> Reply:
        """One step of run `number`: takes requests in, gives what is finished back.

        Args:
            more: whether further requests may come; without, the run ends when all are done.
            wait: seconds to wait at most for something to say.
            room_matters: room for more requests is something to say.
        """
        if self._engine is None:
            return Reply(ended=True, error=("lost", "its process was started anew"))
        if number != self._number:
            self.abandon()
            self._number, self._inbox = number, _Inbox()
            threading.Thread(target=self._inbox.run, args=(self._engine,), name="engine", daemon=True).start()
        assert self._inbox is not None
        reply = self._inbox.exchange(requests, more, wait, room_matters)
        reply.stats = dict(getattr(self._engine, "stats", {}))
        return reply

    def abandon(self) -> None:
        """Ends the run under way; what is in flight is lost."""
        if self._inbox is not None:
            self._inbox.abandon()
            self._inbox = None

    def call(self, name: str, pairs: Sequence[Any]) -> Any:
        if self._engine is None:
            raise EngineLost("its process was started anew")
        return getattr(self._engine, name)(pairs)

    def close(self) -> None:
        self.abandon()
        if self._engine is not None:
            self._engine.close()
            self._engine = None


class _Inbox:
    """The workload of an engine that is fed from elsewhere."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[tuple[int, Request]] = deque()
        self._flight: dict[int, tuple[int, float]] = {}  # id() of a request -> its key, when the engine took it
        self._takes = 0.0  # seconds from taken to put, the mean of the last ones
        self._held: dict[int, Request] = {}  # key -> request
        self._done: list[tuple[int, Completion]] = []
        self._asking: dict[int, int] = {}  # thread -> requests it asked for last, as an engine may have several threads
        self._capacity = 0  # requests that the engine holds when it is full
        self._more, self._stopped, self._ended = True, False, False
        self._error: tuple[str, str] | None = None

    # ----------------------------------------------------------------------------------- the engine's side

    def run(self, engine: Engine) -> None:
        error: tuple[str, str] | None = None
        try:
            engine.run(self)
        except Stop:
            pass
        except EngineLost as e:
            error = ("lost", str(e))
        except GsiError as e:
            error = ("gsi", str(e))
        except BaseException:  # any other is a bug: its trace goes to the run, which ends with it
            error = ("other", traceback.format_exc())
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        deadline = time.monotonic() + timeout
        with self._changed:
            me = threading.get_ident()
            self._asking[me] = n
            self._capacity = len(self._held) - len(self._ready) + sum(self._asking.values())
            try:
                while True:
                    if self._stopped:
                        raise Stop
                    if self._ready and n:
                        taken = [self._ready.popleft() for _ in range(min(n, len(self._ready)))]
                        now = time.monotonic()
                        self._flight.update((id(r), (key, now)) for key, r in taken)
                        if not self._ready:
                            self._changed.notify_all()
                        return [r for _, r in taken]
                    if not self._more and not self._ready:
                        return None
                    self._changed.notify_all()  # there is room
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return []
                    self._changed.wait(left)
            finally:
                del self._asking[me]

    def put(self, request: Request, completion: Completion) -> None:
        with self._changed:
            if self._stopped:
                raise Stop
            key, taken = self._flight.pop(id(request))
            del self._held[key]
            self._done.append((key, completion))
            seconds = time.monotonic() - taken
            self._takes += (seconds - self._takes) / (16 if self._takes else 1)
            if len(self._done) == 1 or not self._held:
                self._changed.notify_all()

    # ----------------------------------------------------------------------------------- the other side

    def exchange(self, requests: Sequence[tuple[int, Request]], more: bool, wait: float, room_matters: bool) -> Reply:
        deadline = time.monotonic() + wait
        with self._changed:
            self._ready.extend(requests)
            self._held.update(requests)
            self._more = more
            self._changed.notify_all()
            while not (self._done or self._ended or (room_matters and more and self._room() > 0)):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._done:
                self._gather(deadline)
            done, self._done = self._done, []
            return Reply(done, max(0, self._room()), self._takes, self._ended, error=self._error)

    def _gather(self, deadline: float) -> None:
        """Waits for further completions, as a call costs the driver more than what it carries: while the engine has something to begin
        with, a small part of what a response takes; then only as long as those that end together are apart."""
        since = time.monotonic()
        while self._held and not self._ended:
            until = max(since + GATHER, min(deadline, since + self._takes * PART)) if self._ready else since + GATHER
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def abandon(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            while not self._ended:
                self._changed.wait()

    def _room(self) -> int:
        """A little more than it can hold, so that the next requests are there when a row becomes free."""
        return self._capacity + max(1, self._capacity // 8) - len(self._held) if self._capacity else 0


class Link(Protocol):
    """How a Host is reached. Every method raises EngineLost when its process is gone, and what the Host raises."""

    name: str  # for messages

    def poll(self) -> Info | None:
        """What `ready` returned; None = it is not there yet (also again, after it was lost and started anew)."""

    def exchange(self, number: int, requests: Sequence[tuple[int, Request]], more: bool, wait: float, room_matters: bool) -> Reply: ...

    def abandon(self) -> None: ...

    def call(self, name: str, pairs: Sequence[Any]) -> Any: ...

    def restart(self) -> bool:
        """After it was lost: whether it comes back."""

    def close(self) -> None: ...


class RemoteEngine:
    """Runs requests on an engine in another process. Before it is there, `run` waits, as long as there is work; to score, `wait` first."""

    def __init__(self, link: Link, info: Info):
        self.link = link
        self.capabilities, self.context = info.capabilities, info.context
        self.parameters, self.stop_ids = info.parameters, info.stop_ids
        self.stats: dict[str, float] = {}
        self._before: dict[str, float] = {}  # counted by processes that are gone
        self._number = 0

    def run(self, work: Workload) -> None:
        if not self.wait(work):
            return
        self._number += 1
        flight: dict[int, Request] = {}
        key, more, ended = 0, True, False
        new: list[tuple[int, Request]] = []
        hungry, look = False, LOOK  # it had room, and nothing was ready
        try:
            while True:
                reply = self.link.exchange(self._number, new, more, look if hungry else WAIT, not hungry)
                ended = reply.ended
                for k, completion in reply.done:
                    work.put(flight.pop(k), completion)
                if reply.stats:
                    self._count(reply.stats)
                if reply.error:
                    kind, text = reply.error
                    raise {"lost": EngineLost, "gsi": GsiError}.get(kind, RuntimeError)(text)
                if ended:
                    return
                new, hungry = [], False
                if more:
                    taken = work.take(reply.room, 0.0 if flight else LOOK)
                    more = taken is not None
                    for request in taken or ():
                        new.append((key, request))
                        key += 1
                    flight.update(new)
                    hungry, look = reply.room > 0 and not taken, min(WAIT, max(LOOK, reply.takes * PART))
        except EngineLost:
            ended = True
            raise
        finally:
            if not ended:
                self.link.abandon()

    def wait(self, work: Workload) -> bool:
        """Until it is there; False = the work was done before."""
        while self.link.poll() is None:
            if work.take(0) is None:
                return False
        return True

    def restart(self) -> bool:
        self._before = dict(self.stats)
        return self.link.restart()

    def score(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        return self.link.call("score", pairs)

    def entropies(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        return self.link.call("entropies", pairs)

    def close(self) -> None:
        self.link.close()

    def _count(self, stats: dict[str, float]) -> None:
        self.stats = {k: v + self._before.get(k, 0) for k, v in stats.items()}

"""What to do about a part that neither fails nor goes on: a clear stop after a limit from the config."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gsi import interrupts
from gsi.types import Completion, GsiError, Request, Workload

GRACE = 10.0  # seconds for an engine that stalls to come back from where it is; then the process ends


class Watch:
    """Calls `act` once, from a thread of its own, when `alive()` has given the same value for `limit` seconds; 0 = never. A context manager."""

    def __init__(self, limit: float, alive: Callable[[], Any], act: Callable[[], None]):
        self._limit, self._alive, self._act = limit, alive, act
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stall", daemon=True)

    def __enter__(self) -> Watch:
        if self._limit:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Whether what is watched has ended within so many seconds."""
        return self._over.wait(seconds)

    def _look(self) -> None:
        last, since = self._alive(), time.monotonic()
        while not self._over.wait(min(1.0, self._limit / 10)):
            if (now := self._alive()) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= self._limit:
                self._act()
                return


class Watched:
    """A workload whose engine must give a sign of life every `limit` seconds while it has requests: a completion, or a figure in its `stats`.

    Else the next `take` raises GsiError. An engine that does not even ask (a call into native code that never returns) ends the process after
    GRACE seconds more, where the process is a command of ours; all that was graded is committed. Use as a context manager around `Engine.run`.
    """

    def __init__(self, work: Workload, engine: Any, kind: str, limit: float):
        self.work, self.kind, self.limit = work, kind, limit
        self._engine, self._flight, self._moves = engine, 0, 0
        self._lock = threading.Lock()
        self._error: GsiError | None = None
        self._watch = Watch(limit, self._alive, self._stalled)

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        if self._error:
            raise self._error
        taken = self.work.take(n, timeout)
        if taken:
            self._moved(len(taken))
        return taken

    def put(self, request: Request, completion: Completion) -> None:
        self._moved(-1)
        self.work.put(request, completion)

    def __enter__(self) -> Watched:
        self._watch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.__exit__(*error)

    def _moved(self, requests: int) -> None:
        with self._lock:
            self._flight += requests
            self._moves += 1

    def _alive(self) -> Any:
        """Another value whenever there is life; always another one while nothing is asked of the engine."""
        return (self._moves, sum(dict(getattr(self._engine, "stats", {})).values())) if self._flight else object()

    def _stalled(self) -> None:
        self._error = GsiError(
            f"engine {self.kind}: it hangs: {self._flight} requests are open and nothing has come of them for {self.limit:g} s (engine.stall). "
            f"{interrupts.GO_ON[0].upper()}{interrupts.GO_ON[1:]} Raise engine.stall if a response may take longer; 0 = wait for ever"
        )
        if not self._watch.wait(GRACE) and interrupts.a_command():
            print(f"\ngsi: {self._error}", file=sys.stderr, flush=True)
            os._exit(self._error.exit_code)

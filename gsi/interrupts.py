"""How a command ends on SIGINT and SIGTERM: politely within GRACE seconds, at once on the second one, resumable either way.

The first raises KeyboardInterrupt in the main thread: what is graded is stored and children are ended. A long call into native code
(a forward pass, a request to a slow teacher) would delay that, so a thread that the interpreter's signal handler wakes at once counts
the signals and ends the process when time is up. That loses nothing that was committed; children end when their standard input does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 8.0  # seconds
EXIT_CODE = 130
GO_ON = "everything graded is saved. The same command goes on from here."
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_held: list[socket.socket] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, the two signals end this process as said above. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {s: signal.signal(s, _interrupt) for s in _SIGNALS}
    woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    _held.append(theirs)  # its end would end the watch
    threading.Thread(target=_watch, args=(ours,), name="signals", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        raise  # the watch goes on: threads that wait for others must not hold up the end of this process
    except BaseException:
        _restore(before, woken, theirs)
        raise
    else:
        _restore(before, woken, theirs)


def a_command() -> bool:
    """Whether this process is one of our commands, which may be ended whole; a notebook or somebody's script may not."""
    return bool(_held)


def _restore(before: dict[signal.Signals, Any], woken: int, theirs: socket.socket) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(woken)
    _held.remove(theirs)
    theirs.close()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _watch(ours: socket.socket) -> None:
    if not _signalled(ours, None):
        return
    _signalled(ours, time.monotonic() + GRACE)  # a second one, or time is up
    os.write(2, f"\ngsi: stopped at once; {GO_ON}\n".encode())
    os._exit(EXIT_CODE)


def _signalled(ours: socket.socket, deadline: float | None) -> bool:
    """Waits for one of our signals; False when the other end is closed or the time is up."""
    while select.select([ours], [], [], None if deadline is None else max(0.0, deadline - time.monotonic()))[0]:
        number = ours.recv(1)
        if not number:
            return False
        if number[0] in _SIGNALS:
            return True
    return False

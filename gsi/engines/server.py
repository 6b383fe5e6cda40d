"""A server process that serves one model and ends with us, however we end."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gsi.types import GsiError

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_ERROR = re.compile(r"\w(Error|Exception): ")


class Server:
    """Starts `command` (`{model}` in any of its words is replaced; no shell) in a process group of its own.

    Its output goes to a temporary log, which is removed when the server is closed while still alive and kept when it
    died by itself. A watchdog between us and it ends the whole group when this process is gone, however it went.

    Raises GsiError for a command that cannot be split into words.
    """

    def __init__(self, command: str, model: str):
        try:
            words = [word.replace("{model}", model) for word in shlex.split(command)]
        except ValueError as e:
            raise GsiError(f"engine.launch: {command!r} cannot be split into words: {e}") from e
        if not words:
            raise GsiError("engine.launch: the command is empty")
        handle, name = tempfile.mkstemp(prefix="gsi-server-", suffix=".log")
        self.log = Path(name)
        watchdog = Path(__file__).with_name("watchdog.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(watchdog), str(GRACE), *words],
            stdin=subprocess.PIPE,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
        )
        os.close(handle)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def tail(self, lines: int = 15) -> str:
        """The end of its log, the last errors that stand before that, and where the log is."""
        errors: collections.deque[str] = collections.deque(maxlen=4)
        last: collections.deque[str] = collections.deque(maxlen=lines)
        with self.log.open(encoding="utf-8", errors="replace") as f:
            for line in f:
                if len(last) == lines and _ERROR.search(last[0]):
                    errors.append(last[0])
                last.append(line[:500].rstrip() + "\n")
        return f"the end of its log ({self.log}):\n" + ("".join((*errors, *last)).rstrip() or "(empty)")

    def close(self) -> None:
        """SIGTERM to the group, SIGKILL after GRACE seconds; returns when nothing of it is left. May be called again."""
        died = self.ended
        if self._process.stdin:
            self._process.stdin.close()  # the watchdog does the rest
        try:
            self._process.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if not died:
            self.log.unlink(missing_ok=True)

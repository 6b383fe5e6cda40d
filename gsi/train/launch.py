"""Starts a training job in processes of its own, so that its memory is gone when it ends.

The job is a file; progress comes back as JSON lines on the children's standard output. Their standard input stays open: when this
process dies, however it dies, they see the end of it and exit. What they leave in job.work (checkpoints) is used by the next call
for the same job, so a training that was killed goes on from there.
"""

from __future__ import annotations

import collections
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsi.stall import Watch
from gsi.train.parallel import gpu_index
from gsi.types import GsiError, TrainJob

MARK = '{"gsi"'  # how an event begins (`sft.emit`)
OUT_OF_MEMORY = 75  # exit code of a child that could not get memory
# settings that change nothing about the result: a checkpoint made with other values of these is still good
_FREE = (
    "micro_batch_size",
    "processes",
    "cluster",
    "parallel",
    "device",
    "packing",
    "liger",
    "checkpoint_minutes",
    "checkpoint_steps",
    "tracking",
    "stall",
)


class TrlTrainer:
    """Trainer: TRL's SFTTrainer on stored token ids, in child processes."""

    def train(
        self, job: TrainJob, progress: Callable[[int, int], None] | None = None, say: Callable[[str], None] | None = None
    ) -> dict[str, float]:
        """Runs the job, or the rest of it. `progress(step, steps)`; `say(text)` for what the user should know.

        Returns loss, steps, tokens, seconds, seconds_training, micro_batch_size, processes. Where memory runs out, the micro-batch is
        halved and training goes on; the batches and the result stay the same.
        Raises GsiError with the child's own message (NaN loss, ...) or the end of its log.
        """
        started, say = time.perf_counter(), say or (lambda text: None)
        work = Path(job.work)
        work.mkdir(parents=True, exist_ok=True)
        with _alone(work):  # a child that outlived its parent by a moment may still be writing
            _forget_other_job(work, job)
        while True:
            figures, message = self._run(job, progress, say)
            if figures is not None:
                return figures | {"seconds": time.perf_counter() - started}
            size = job.settings["micro_batch_size"]
            if size == 1:
                raise GsiError(
                    f"training: out of memory with one row at a time: {message}; set train.gradient_checkpointing=true, lower train.max_length, "
                    "use train.method=lora or more processes with train.parallel=fsdp2"
                )
            say(f"training: out of memory with {size} rows at a time; going on with {size // 2} (twice as many accumulation steps)")
            job = replace(job, settings=job.settings | {"micro_batch_size": size // 2})

    def _run(
        self, job: TrainJob, progress: Callable[[int, int], None] | None, say: Callable[[str], None]
    ) -> tuple[dict[str, float] | None, str]:
        """(figures, ""), or (None, message) when memory ran out."""
        work = Path(job.work)
        log, file = work / "train.log", work / "job.json"
        kind = job.settings["device"].partition(":")[0]  # which one is in the child's environment, where it is the only one
        file.write_text(json.dumps(dataclasses.asdict(replace(job, settings=job.settings | {"device": kind}))), encoding="utf-8")
        result: dict[str, float] | None = None
        starved = ""
        with log.open("ab") as err:
            child = subprocess.Popen(
                _command(job, file),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=_environment(job),
                text=True,
                encoding="utf-8",
            )
            lines, hung = 0, False

            def kill() -> None:
                nonlocal hung
                hung = True
                child.kill()
                child.stdin.close()  # type: ignore[union-attr]  # several processes: the others end with it

            watch = Watch(limit := job.settings.get("stall", 0.0), lambda: lines, kill)
            try:
                assert child.stdout is not None
                watch.__enter__()
                for line in child.stdout:
                    lines += 1
                    for event in events(line):
                        if event["gsi"] == "step" and progress:
                            progress(event["step"], event["steps"])
                        elif event["gsi"] == "log":
                            err.write((event["text"] + "\n").encode())
                            err.flush()
                        elif event["gsi"] == "say":
                            say(f"training: {event['text']}")
                        elif event["gsi"] == "first_batch":
                            text = _row_as_text(event)
                            err.write((text + "\n").encode())
                            say(text)
                        elif event["gsi"] == "out_of_memory":
                            starved = event["message"]
                        elif event["gsi"] == "error":
                            raise GsiError(f"training: {event['message']} (log: {log})")
                        elif event["gsi"] == "done":
                            result = event["figures"]
                child.wait()
            finally:
                watch.__exit__()
                _end(child)
        if hung:
            raise GsiError(
                f"training: it hangs: no step and no other sign of life for {limit:g} s (train.stall), so it was ended (log: {log}). The same command "
                "goes on from its last checkpoint; raise train.stall if a step may take longer, 0 = wait for ever"
            )
        if result is not None and child.returncode == 0:
            return result, ""
        if starved:
            return None, starved
        with log.open(encoding="utf-8", errors="replace") as f:
            tail = "".join(collections.deque(f, 15))
        raise GsiError(f"training: the child process ended with code {child.returncode} (log: {log}):\n{tail}")


def events(line: str) -> Iterator[dict[str, Any]]:
    """What a line of the pipe tells: nothing where it is a library's own print, several events where such a print's end of line came late."""
    at = line.find(MARK)
    while at >= 0:
        event, end = json.JSONDecoder().raw_decode(line, at)
        yield event
        at = line.find(MARK, end)


def _command(job: TrainJob, file: Path) -> list[str]:
    if job.settings.get("cluster"):
        return [sys.executable, "-m", "gsi.train.on_ray", str(file)]
    n = job.settings["processes"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)] if n > 1 else []
    return [sys.executable, *launcher, "-m", "gsi.train.sft", str(file)]


def _environment(job: TrainJob) -> dict[str, str]:
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
    if job.settings["processes"] == 1 and not job.settings.get("cluster"):  # Ray shares GPUs out itself
        quiet |= _one_gpu(job.settings["device"])
    if job.settings["processes"] > 1:
        quiet["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")  # torchrun sets and announces it otherwise
    if (cluster := job.settings.get("cluster")) and not cluster["address"] and (ray := sys.modules.get("ray")) and ray.is_initialized():
        quiet["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # the cluster that this process is in, which may be one of its own
    return os.environ | quiet


def _one_gpu(device: str) -> dict[str, str]:
    """The environment variable that leaves a process one GPU of those that this one may use, numbers or UUIDs: transformers takes all it sees."""
    visible, index = os.environ.get("CUDA_VISIBLE_DEVICES"), gpu_index(device)
    if device == "cpu" or visible == "":
        return {}
    return {"CUDA_VISIBLE_DEVICES": str(index) if visible is None else ",".join(visible.split(",")[index : index + 1]).strip()}


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(4)  # an interrupted run has 8 seconds in all
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()  # the end of its standard input ends whatever the child left behind


def _row_as_text(event: dict[str, Any]) -> str:
    """The first row of the first batch: context as it is, what is trained between marks."""
    pieces = "".join(f"⟦{p['text']}⟧" if p["trained"] else p["text"] for p in event["row"]["pieces"])
    if len(pieces) > 1200:
        pieces = f"{pieces[:600]} […] {pieces[-600:]}"
    return f"first row of the first batch of {event['rows']} ({event['row']['row']}), trained tokens between ⟦ and ⟧:\n{pieces}"


def _alone(work: Path) -> Any:
    """Waits until no child holds the folder; closes (and so unlocks) at the end of `with`."""
    file = (work / "child.lock").open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def hold(work: Path) -> None:
    """In the child: holds the folder until this process ends, however it ends."""
    file = (work / "child.lock").open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    _held.append(file)


_held: list[Any] = []


def _forget_other_job(work: Path, job: TrainJob) -> None:
    """Removes checkpoints of a job that would have another result."""
    key = hashlib.blake2b(digest_size=16)
    settings = {k: v for k, v in job.settings.items() if k not in _FREE}
    sharded = job.settings["processes"] > 1 and job.settings["parallel"] not in ("single", "ddp")  # such checkpoints fit no other layout
    layout = (job.settings["parallel"], job.settings["processes"]) if sharded else ()
    weights = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(Path(job.model).glob("*.safetensors"))]
    key.update(json.dumps([job.model, weights, job.seed, settings, layout], sort_keys=True).encode())
    with Path(job.data).open("rb") as f:
        while block := f.read(1 << 20):
            key.update(block)
    mark = work / "job.key"
    if not mark.exists() or mark.read_text(encoding="utf-8") != key.hexdigest():
        for item in work.iterdir():
            if item.name != "child.lock":
                shutil.rmtree(item) if item.is_dir() else item.unlink()
        mark.write_text(key.hexdigest(), encoding="utf-8")


def exit_with_parent(stdin: int = 0) -> None:
    """In the child: ends this process when its standard input reaches its end, that is, when the parent is gone."""

    def watch() -> None:
        while os.read(stdin, 1):  # not through sys.stdin: its lock would be held when this process ends by itself
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

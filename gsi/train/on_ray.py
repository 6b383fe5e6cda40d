"""Training on a Ray cluster: Ray Train's TorchTrainer around the same training entry, `gsi.train.sft`, one process per worker.

    python -m gsi.train.on_ray JOB.json   # started by gsi.train.launch in place of torchrun; the same JSON lines on standard output

This process is a driver of its own: when it ends, however it ends, Ray ends its workers. Ray places them, joins them into a process group
and says when one is gone. Rows, checkpoints and the trained model go through one folder that all nodes see: `train.cluster.folder`, or
the run folder where all of them are this machine.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import threading
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gsi.train.launch import exit_with_parent
from gsi.types import TrainJob

QUIET = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


class Events:
    """An actor that carries the workers' lines to the driver."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def put(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def work(settings: dict[str, Any]) -> dict[str, float]:
    """In a worker, whose rank and process group Ray has set up: the training entry. Returns its figures."""
    import ray
    from ray import train

    from gsi.train import sft

    events, here, context = settings["events"], ray.get_runtime_context(), train.get_context()
    sft.send = lambda line: ray.get(events.put.remote(line))  # waits: after some lines the process ends at once
    rank, node = f"{context.get_world_rank()} of {context.get_world_size()}", f"{ray.util.get_node_ip_address()} ({here.get_node_id()})"
    sft.send(json.dumps({"gsi": "log", "text": f"worker {rank} on node {node}"}))
    return sft.run(TrainJob(**settings["job"]))


def main() -> None:
    exit_with_parent()
    job = absolute(TrainJob(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    ray, train, torch = (importlib.import_module(name) for name in ("ray", "ray.train", "ray.train.torch"))
    cluster = job.settings["cluster"]
    ray.init(address=cluster["address"], log_to_driver=False, configure_logging=False)
    gpus = job.settings["device"] != "cpu" and bool(ray.cluster_resources().get("GPU"))
    shared = moved(job)
    events = ray.remote(Events).options(num_cpus=0).remote()
    relay = threading.Thread(target=_relay, args=(ray, events), daemon=True)
    relay.start()
    trainer = torch.TorchTrainer(
        work,
        train_loop_config={"job": asdict(shared), "events": events},
        torch_config=torch.TorchConfig(backend=None if gpus else "gloo"),
        scaling_config=train.ScalingConfig(num_workers=job.settings["processes"], use_gpu=gpus, resources_per_worker=cluster["resources"]),
        # no second try here: the caller goes on from the last checkpoint, or with smaller micro-batches
        run_config=train.RunConfig(
            name="ray", storage_path=shared.work, failure_config=train.FailureConfig(max_failures=0), worker_runtime_env={"env_vars": QUIET}
        ),
    )
    try:
        result = trainer.fit()
    except Exception:  # whatever it was: what the workers said of it comes first
        _forward(ray.get(events.take.remote()))
        traceback.print_exc()
        _end(1)
    _forward(ray.get(events.take.remote()))
    if shared != job:
        _fetch(shared, job)
    _forward([json.dumps({"gsi": "done", "figures": result.return_value})])
    _end(0)


def absolute(job: TrainJob) -> TrainJob:
    """The same job for processes with another working directory. What is no folder here is a hub id."""
    paths: dict[str, Any] = {name: str(Path(getattr(job, name)).absolute()) for name in ("data", "output", "work")}
    paths |= {n: str(Path(v).absolute()) for n in ("model", "tokenizer") if Path(v := getattr(job, n)).is_dir()}
    return replace(job, **paths)


def moved(job: TrainJob) -> TrainJob:
    """The job with its files in the folder that all nodes see. One job has one place there, so a training that was killed goes on."""
    if not job.settings["cluster"]["folder"]:
        return job
    place = Path(job.settings["cluster"]["folder"]) / f"gsi-training-{Path(job.work, 'job.key').read_text(encoding='utf-8')}"
    run, model = Path(job.data).parent.parent, job.model
    for name in ("train.parquet", "validation.parquet"):
        if (source := Path(job.data).with_name(name)).exists():
            _copy(source, place / name)
    if Path(model).is_dir() and Path(model).is_relative_to(run):  # a base model is where every node has it
        if not (place / "base").exists():
            shutil.rmtree(place / "base.part", ignore_errors=True)
            shutil.copytree(model, place / "base.part")
            (place / "base.part").rename(place / "base")
        model = str(place / "base")
    (place / "work").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place / "out", ignore_errors=True)
    return replace(job, data=str(place / "train.parquet"), model=model, output=str(place / "out"), work=str(place / "work"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    shutil.copyfile(source, part)
    part.replace(target)


def _fetch(shared: TrainJob, job: TrainJob) -> None:
    """The trained model, and what else is left beside the rows, to where the run wants them; then the shared place goes."""
    shutil.copytree(shared.output, job.output)
    if (first := Path(shared.data).with_name("first_batch.json")).exists():
        shutil.copyfile(first, Path(job.data).with_name("first_batch.json"))
    shutil.rmtree(Path(shared.work).parent)


def _relay(ray: Any, events: Any) -> None:
    while True:
        _forward(ray.get(events.take.remote()))
        time.sleep(0.2)


def _forward(lines: list[str]) -> None:
    """Events to standard output; what is for the log to standard error."""
    for line in lines:
        event = json.loads(line)
        print(event["text"] if event["gsi"] == "log" else line, file=sys.stderr if event["gsi"] == "log" else sys.stdout, flush=True)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Ray ends the rest with its driver; its own goodbyes may wait for workers that are gone


if __name__ == "__main__":
    from gsi.train import on_ray  # by its name, so that workers load it too instead of getting a copy of this script

    on_ray.main()

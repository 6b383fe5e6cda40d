"""The scripted engine and training, but where AT_WORK names a file they make it and take very long: for tests of signals."""

import os
import time
from pathlib import Path

import scripted

from gsi.types import Request, TrainJob


def at_work() -> bool:
    if path := os.environ.get("AT_WORK"):
        Path(path).touch()
    return bool(path)


def sleeps(request: Request, model: str) -> str:
    if at_work():
        time.sleep(600)
    return scripted.respond(request, model)


def never_ends(request: Request, model: str) -> str:
    while at_work():
        try:
            time.sleep(600)
        except KeyboardInterrupt:  # as a library that swallows everything would
            continue
    return scripted.respond(request, model)


def trains_long(job: TrainJob) -> dict[str, float]:
    if at_work():
        time.sleep(600)
    return scripted.train(job)


def tampers_with_base(job: TrainJob) -> dict[str, float]:
    """As somebody who writes a new model to the base's folder while the run goes on."""
    done = scripted.train(job)
    if job.work.endswith("iter_2/work"):
        (Path(job.model) / "skill.json").write_text('{"skill": 9.0}')
    return done


def draws_and_tampers(request: Request, model: str) -> str:
    """The same with a model of the run, while it is drawn from."""
    if "iter_1" in model:
        (Path(model) / "skill.json").write_text('{"skill": 9.0}')
    return scripted.respond(request, model)

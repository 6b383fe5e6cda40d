"""Engines and trainings that take long, for tests of signals. They make the file AT_WORK when they begin."""

import os
import time
from pathlib import Path

from gsi.types import Request, TrainJob


def at_work() -> None:
    Path(os.environ["AT_WORK"]).touch()


def sleeps(request: Request, model: str) -> str:
    at_work()
    time.sleep(600)
    return ""


def never_ends(request: Request, model: str) -> str:
    at_work()
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:  # as a library that swallows everything would
            continue


def trains_long(job: TrainJob) -> dict[str, float]:
    at_work()
    time.sleep(600)
    return {}

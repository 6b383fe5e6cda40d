"""Engines for processes of their own, in a module that imports nothing heavy."""

import os
import time

from gsi.engines.scripted import ScriptedEngine
from gsi.types import GsiError


def echo(request, model):
    return f"{request.prompt.text}{request.seed}"


def slow_echo(request, model):
    time.sleep(0.005)
    return echo(request, model)


def broken(request, model):
    return 1 / 0


def engine(function=slow_echo, max_rows=16):
    return ScriptedEngine(function, "m", max_rows)


def refusing():
    raise GsiError(f"process {os.getpid()} has no such model")

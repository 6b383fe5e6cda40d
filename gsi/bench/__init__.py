"""The project's own benchmarks: `gsi bench NAME` prints one JSON line. Ratios within one run on one machine, no absolute promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Line = dict[str, Any]


def _grading() -> Line:
    from gsi.bench.grading import grading

    return grading()


def _sampling() -> Line:
    from gsi.bench.sampling import sampling

    return sampling()


def _memory() -> Line:
    from gsi.bench.memory import memory

    return memory()


def _training() -> Line:
    from gsi.bench.training import training

    return training()


def _report() -> Line:
    from gsi.bench.report import report

    return report()


def _allocation() -> Line:
    from gsi.bench.allocation import allocation

    return allocation()


def _start() -> Line:
    from gsi.bench.start import start

    return start()


def _cluster() -> Line:
    from gsi.bench.cluster import cluster

    return cluster()


BENCHES: dict[str, Callable[[], Line]] = {
    "grading": _grading,
    "sampling": _sampling,
    "memory": _memory,
    "training": _training,
    "report": _report,
    "allocation": _allocation,
    "cluster": _cluster,
    "start": _start,
}

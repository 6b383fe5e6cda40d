"""`gsi bench cluster`: what engines on a Ray cluster cost beside engines alone, on this machine.

    two_processes   two processes, each with its own engine and its own half of the requests
    two_replicas    the same requests through `engine: {kind: ray, replicas: 2}`
    schedule        processor time of the driver per request: 50 engines that sleep, at 50 requests/s each, as threads of 5 actors
    alone           the same with 10 engines, each an actor of its own, so that a call carries fewer requests

The driver's time is that of all its threads, Ray's among them, on processors (`time.process_time`): waiting for one is not in it. What other
work on the machine still changes is how many requests a call carries (`requests_per_call`), since engines that come late have fewer to hand back.

Engines have one thread each (OMP_NUM_THREADS=1), and starts are not counted.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsi.bench.workload import Fixed, Tokenizer, build_model, length, request
from gsi.config.engines import RayEngine, ScriptedEngine, TransformersEngine
from gsi.types import Completion, Query, Request, Sampling, Text, Workload

ROWS, ATTEMPTS = 64, 8
ACTORS, ENGINES, RATE = 5, 50, 50  # engines in all; requests/s of each
ALONE = 10  # engines that are an actor each
LIVE = 50  # requests that a sleeping engine holds


def cluster(queries: int = 96, scheduled: int = 15_000) -> dict[str, Any]:
    from gsi.engines.cluster import connect, ray_replicas

    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 is no match for the two processes where other work is done
    connect(None)
    n = queries * ATTEMPTS
    with tempfile.TemporaryDirectory() as folder:
        model = str(build_model(Path(folder)))
        apart = n / _two_processes(model, queries)
        settings = RayEngine(of=TransformersEngine(device="cpu", max_rows=ROWS), replicas=2, resources={"CPU": 1})
        engine = ray_replicas(settings, functools.partial(embedded, model))
        while not all(e.link.poll() for e in engine.engines):
            pass
        engine.run(Fixed(requests(0, 4)))
        together = n / _timed(lambda: engine.run(Fixed(requests(0, queries))))
        engine.close()
    microseconds, rate, carried = _schedule(scheduled, ACTORS, ENGINES // ACTORS)
    alone, _, carried_alone = _schedule(scheduled // 5, ALONE, 1)
    return {
        "two_processes_per_s": round(apart, 2),
        "two_replicas_per_s": round(together, 2),
        "ratio": round(together / apart, 3),
        "schedule_us_per_request": round(microseconds, 1),
        "scheduled_per_s": round(rate),
        "requests_per_call": round(carried, 1),
        "replicas_at_50_per_s": int(1e6 / microseconds / RATE),
        "alone_us_per_request": round(alone, 1),
        "alone_requests_per_call": round(carried_alone, 1),
    }


def requests(first: int, last: int) -> list[Request]:
    return [request(q, a, length(q, a)) for q in range(first, last) for a in range(ATTEMPTS)]


def embedded(model: str) -> Any:
    from gsi.engines.transformers import TransformersEngine as Embedded

    engine = Embedded(model, Tokenizer(), "cpu", max_rows=ROWS)
    engine.stop_ids = frozenset()  # lengths are given
    return engine


def _two_processes(model: str, queries: int) -> float:
    """Seconds from a common start until both are done."""
    half = queries // 2
    command = [sys.executable, "-m", "gsi.bench.cluster", model]
    both = [
        subprocess.Popen(
            [*command, str(i * half), str((i + 1) * half)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        for i in range(2)
    ]
    for p in both:
        assert p.stdout is not None
        p.stdout.readline()
    started = time.perf_counter()
    for p in both:
        assert p.stdin is not None
        p.stdin.write("go\n")
        p.stdin.flush()
    for p in both:
        p.wait()
    return time.perf_counter() - started


def _half(model: str, first: int, last: int) -> None:
    engine = embedded(model)
    engine.run(Fixed(requests(0, 4)))
    print("ready", flush=True)
    sys.stdin.readline()
    engine.run(Fixed(requests(first, last)))


class Sleeping:
    """Holds LIVE requests, each for a second on average: a rate of LIVE per second."""

    capabilities = frozenset({"ids", "seeds"})

    def run(self, work: Workload) -> None:
        due: list[tuple[float, int, Request]] = []
        more, count = True, 0
        while more or due:
            if more and len(due) < LIVE:
                taken = work.take(LIVE - len(due), 0.0 if due else 0.05)
                more = taken is not None
                for r in taken or ():
                    count += 1
                    heapq.heappush(due, (time.monotonic() + LIVE / RATE * random.Random(r.seed).uniform(0.5, 1.5), count, r))
            while due and due[0][0] <= time.monotonic():
                r = heapq.heappop(due)[2]
                work.put(r, Completion("x" * 400, tuple(range(100)), "stop", 100))
            if due:
                time.sleep(max(0.0, min(0.05, due[0][0] - time.monotonic())))

    def close(self) -> None: ...


def sleepers(n: int) -> Any:
    from gsi.engines.pool import Replicas

    return Replicas([Sleeping] * n)


def _schedule(n: int, actors: int, each: int) -> tuple[float, float, float]:
    """(microseconds of this process's time per request, requests per second, requests per call of an actor)."""
    from gsi.engines.cluster import ray_replicas

    settings = RayEngine(of=ScriptedEngine(function="-"), replicas=actors, resources={"CPU": 0.01})
    engine = ray_replicas(settings, functools.partial(sleepers, each))
    while not all(e.link.poll() for e in engine.engines):
        pass
    calls = itertools.count()
    for e in engine.engines:
        e.link.exchange = _counted(e.link.exchange, calls)
    ids = tuple(range(200))
    work = [
        Request(Query(str(i // 8), "bench", "x" * 300, "1", "y" * 400), 0, i % 8, Text("x" * 300, ids), Text("", ()), Sampling(), i)
        for i in range(n)
    ]
    used = time.process_time()
    seconds = _timed(lambda: engine.run(Fixed(work)))
    used = time.process_time() - used
    engine.close()
    return used / n * 1e6, n / seconds, n / next(calls)


def _counted(call: Any, calls: Any) -> Any:
    def counted(*args: Any) -> Any:
        next(calls)
        return call(*args)

    return counted


def _timed(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main(arguments: Sequence[str]) -> None:
    _half(arguments[0], int(arguments[1]), int(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])

"""The Ray engine on clusters of this machine, with parts of them killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import light
import models
import pytest
import scripted
from test_engine import PROMPTS, TOKENIZER, Queue, request, run

from gsi import build
from gsi import run as gsi_run
from gsi.config import RayEngine, load_config
from gsi.engines import cluster
from gsi.progress import Reporter
from gsi.seeds import seed_of
from gsi.types import GsiError, Stop

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
QUIET = Reporter("quiet")
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module", autouse=True)
def settings():
    """Patience for busy machines; workers find the modules of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "180")
        patch.setenv("RAY_DEDUP_LOGS", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)]))
        yield


@pytest.fixture
def started(tmp_path_factory):
    """started(n) -> a cluster whose head has no CPU to give and n nodes with one CPU each, and this process connected to it."""
    made = []

    def start(nodes: int) -> Cluster:
        made.append(Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE}))
        for _ in range(nodes):
            made[-1].add_node(num_cpus=1, **NODE)
        cluster.connect(made[-1].address)
        return made[-1]

    yield start
    ray.shutdown()
    for c in made:
        c.shutdown()


def engine_of(make, replicas=2, say=lambda text: None, **more):
    return cluster.ray_replicas(RayEngine(**{"of": {"kind": "scripted", "function": "light:slow_echo"}, "replicas": replicas} | more), make, say)


class Watched(Queue):
    """Calls `act` once, after `after` answers; holds that none comes twice."""

    def __init__(self, requests, after, act):
        super().__init__(requests)
        self.after, self.act = after, act

    def put(self, request, completion):
        assert request.seed not in self.done
        super().put(request, completion)
        if len(self.done) == self.after:
            self.act()


def test_a_dead_node_a_dead_actor_and_a_node_that_comes_late(started, monkeypatch):
    c = started(1)
    said: list[str] = []
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with pytest.raises(GsiError, match="one replica needs CPU 1, GPU 1, and no node of the cluster has that. There are 2 nodes .*CPU 1"):
        engine_of(light.engine, resources={"CPU": 1, "GPU": 1})
    engine = engine_of(light.engine, say=said.append)
    requests = [request("abc", i) for i in range(1200)]
    expected = {i: f"abc{i}" for i in range(1200)}

    # one node, two replicas wanted: the run goes on with one and says so; then a second node comes
    def grow():
        threading.Thread(target=lambda: c.add_node(num_cpus=1, **NODE), daemon=True).start()

    work = Watched(requests, 20, grow)
    while not any(e.link.info for e in engine.engines[1:]) and len(c.list_all_nodes()) < 3:
        work = Watched([request("abc", i) for i in range(len(work.done) + 1200)], 20, grow)
        engine.run(work)
    wait_for(lambda: all(e.link.poll() for e in engine.engines))
    assert any("waits since" in line and "for CPU 1" in line for line in said)

    work = Queue(requests)
    engine.run(work)
    assert {s: r.text for s, r in work.done.items()} == expected
    nodes = [e.link.info.node for e in engine.engines]
    assert len(set(nodes)) == 2, "one replica per node"

    # an actor dies in the middle: Ray starts it again
    said.clear()
    work = Watched(requests, 300, lambda: os.kill(engine.engines[0].link.info.pid, signal.SIGKILL))
    engine.run(work)
    assert {s: r.text for s, r in work.done.items()} == expected
    assert any("starts again" in line for line in said)
    wait_for(lambda: all(e.link.poll() for e in engine.engines))

    # a node dies in the middle
    said.clear()
    victim = next(n for n in c.list_all_nodes() if n.node_id == engine.engines[1].link.info.node)
    work = Watched(requests, 300, lambda: c.remove_node(victim, allow_graceful=False))
    engine.run(work)
    assert {s: r.text for s, r in work.done.items()} == expected
    assert any("replica 1 of 2 is lost" in line for line in said)

    # the rest goes on with one, and everything it has is used
    assert len(run(engine, [request("abc", i) for i in range(50)])) == 50
    engine.close()


def wait_for(true, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)

"""The Ray engine on clusters of this machine, with parts of them killed."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import light
import models
import own_check
import pytest
import scripted
from test_engine import PROMPTS, TOKENIZER, Queue, request, run
from test_training import NOISE, difference, job, rows
from test_vllm import FAKE, groups_left, pids, with_vllm, wrapper
from test_vllm import REAL as VLLM
from test_vllm import model as llama  # noqa: F401 (a fixture)
from transformers import AutoModelForCausalLM

from gsi import Query, build
from gsi import run as gsi_run
from gsi.config import load_config
from gsi.config.data import Grading
from gsi.config.engines import RayEngine
from gsi.engines import cluster
from gsi.engines.remote import RemoteEngine
from gsi.progress import Reporter
from gsi.spread import spread
from gsi.train.launch import TrlTrainer
from gsi.types import GsiError
from gsi.verify import make_grader

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
QUIET = Reporter("quiet")
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False, "include_log_monitor": False}


@pytest.fixture(scope="module", autouse=True)
def settings():
    """Patience for busy machines; workers find the modules of the tests, and scripted responses take a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token of this user's other clusters decides
        patch.setenv("RAY_agent_register_timeout_ms", "300000")  # else a node ends itself after 30 s
        patch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 starves them where other work is done
        patch.setenv("SCRIPTED_DELAY", "0.02")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)]))
        yield


@pytest.fixture(scope="module")
def nodes(settings):
    """A cluster whose head has no CPU to give, and one node with one CPU; this process is connected to it."""
    c = Cluster()
    start_node(c, 0)
    start_node(c, 1)
    cluster.connect(c.address)
    yield c
    ray.shutdown()
    c.shutdown()


def start_node(c: Cluster, cpus: int) -> None:
    """Ray gives a node 30 s to start; a busy machine may need another try."""
    for tries in range(5):
        try:
            c.add_node(num_cpus=cpus, **NODE)
            return
        except Exception:
            if tries == 4:
                raise


def two_nodes(c: Cluster) -> None:
    """Ray takes half a minute to notice that a node was killed, and counts it as alive until then."""
    while len(c.list_all_nodes()) < 3:
        start_node(c, 1)
    wait_for(lambda: {n["NodeID"] for n in ray.nodes() if n["Alive"]} == {n.node_id for n in c.list_all_nodes()})


def kill_node_of(c: Cluster, engine: RemoteEngine) -> None:
    c.remove_node(next(n for n in c.list_all_nodes() if n.node_id == engine.link.info.node), allow_graceful=False)


def wait_for(true, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def engine_of(make, replicas=2, say=lambda text: None, **more):
    return cluster.ray_replicas(
        RayEngine(**{"of": {"kind": "scripted", "function": "light:slow_echo"}, "replicas": replicas} | more), make, say
    )


class Once(Queue):
    """Holds that no answer comes twice."""

    def put(self, request, completion):
        assert request.seed not in self.done
        super().put(request, completion)


@contextmanager
def running(engine, requests):
    """The engine at work in another thread; at the end it has answered all of them."""
    work, errors = Once(requests), []

    def run():
        try:
            engine.run(work)
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield work
    finally:
        thread.join(300)
    assert not errors, errors
    assert not thread.is_alive()
    assert {s: c.text for s, c in work.done.items()} == {r.seed: light.echo(r, "") for r in requests}


def test_nodes_and_actors_come_and_go(nodes, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with pytest.raises(GsiError, match=r"one replica needs CPU 1, GPU 1, and no node of the cluster has that. There are 2 nodes .*CPU 1"):
        engine_of(light.engine, resources={"CPU": 1, "GPU": 1})

    engine = engine_of(light.engine, say=said.append)
    requests = [request("abc", i) for i in range(1000)]
    first, second = engine.engines
    assert first.link.poll()
    assert not second.link.poll(), "one node, one replica"
    with running(engine, requests) as work:  # a second node comes while it runs
        wait_for(lambda: len(work.done) > 20)
        two_nodes(nodes)
    assert any("waits since" in line and "for CPU 1" in line for line in said)
    wait_for(second.link.poll)
    assert first.link.info.node != second.link.info.node

    said.clear()
    with running(engine, requests) as work:  # an actor dies: Ray starts it again
        wait_for(lambda: len(work.done) > 100)
        os.kill(first.link.info.pid, signal.SIGKILL)
    assert any("replica 0 of 2 is lost" in line and "starts again" in line for line in said)
    wait_for(first.link.poll)

    said.clear()
    with running(engine, requests) as work:  # a node dies: the other one does the rest, until there is room again
        wait_for(lambda: len(work.done) > 100)
        kill_node_of(nodes, second)
    assert any("replica 1 of 2 is lost" in line for line in said)
    assert len(run(engine, requests[:50])) == 50
    engine.close()


# --------------------------------------------------------------------------------------- whole runs


def on_ray(nodes: Cluster, of: dict, output: Path, **changes) -> dict:
    return scripted.config(output, **{"engine": {"kind": "ray", "of": of, "replicas": 2, "address": nodes.address}} | changes)


SCRIPTED = {"kind": "scripted", "function": f"{scripted.HERE}:respond", "max_rows": 4}


def ledger(path: Path, leave_out=("created_at", "model")) -> dict:
    """(table, split, query, iteration, attempt) -> the rest of the row."""
    rows = {}
    if not (path / "ledger.sqlite").exists():
        return rows
    with sqlite3.connect(path / "ledger.sqlite") as db:
        db.row_factory = sqlite3.Row
        for table in ("rollouts", "evaluations"):
            try:
                found = [dict(r) for r in db.execute(f"SELECT * FROM {table}")]
            except sqlite3.OperationalError:  # the schema is not there yet
                return {}
            for r in found:
                key = (table, r.pop("split", None), r.pop("query_id"), r.pop("iteration"), r.pop("attempt"))
                rows[key] = {k: v for k, v in r.items() if k not in leave_out}
    return rows


def drawn(path: Path) -> int:
    return sum(key[0] == "rollouts" for key in ledger(path))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The ledger of a run with the scripted engine in this process."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCRIPTED_DELAY", "0")
        gsi_run(load_config(scripted.config(path)), reporter=QUIET)
    return ledger(path)


@contextmanager
def in_a_thread(config: dict, **more):
    errors = []

    def work():
        try:
            gsi_run(load_config(config), reporter=QUIET, **more)
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(400)
    assert not errors, errors
    assert not thread.is_alive()


def test_a_node_killed_in_mid_sampling_changes_nothing(nodes, tmp_path, undisturbed):
    two_nodes(nodes)
    path = tmp_path / "run"
    with in_a_thread(on_ray(nodes, SCRIPTED, path)):
        wait_for(lambda: drawn(path) >= 40)
        before = drawn(path)
        nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    assert before < 150, "it was in the middle"
    assert ledger(path) == undisturbed


def test_a_killed_driver_resumes_on_the_cluster(nodes, tmp_path, undisturbed):
    two_nodes(nodes)
    path = tmp_path / "run"
    config = on_ray(nodes, SCRIPTED, path)
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    driver = subprocess.Popen([sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml")], stdout=subprocess.DEVNULL)
    wait_for(lambda: drawn(path) >= 40 or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = ledger(path, ())
    assert 40 <= len(kept) < len(undisturbed)
    gsi_run(load_config(config), reporter=QUIET)
    assert ledger(path) == undisturbed
    assert kept.items() <= ledger(path, ()).items(), "what was committed stays, with its time"


def test_the_same_attempts_with_the_same_seeds_as_in_one_process(nodes, tmp_path, capsys):
    """A real model; a node is killed in the middle of the run on the cluster."""
    two_nodes(nodes)
    model = models.build(tmp_path / "model")
    queries = [Query(f"q{i}", "made_up", f"{i} + {i} = ", str(2 * i)) for i in range(40)]
    common = {
        "model": str(model), "iterations": 1, "tasks": [{"name": "made_up", "check": f"{scripted.HERE}:anything"}],
        "sample": {"k": 8, "wanted": 2, "max_new_tokens": 60}, "train": {"kind": "scripted", "function": f"{scripted.HERE}:copy_model"},
    }  # fmt: skip
    alone = scripted.config(tmp_path / "alone", **common | {"engine": {"kind": "transformers", "device": "cpu", "max_rows": 8}})
    gsi_run(load_config(alone), queries, reporter=QUIET)
    path = tmp_path / "ray"
    with in_a_thread(on_ray(nodes, {"kind": "transformers", "device": "cpu", "max_rows": 8}, path, **common), queries=queries):
        wait_for(lambda: drawn(path) >= 40)
        kept = ledger(path, ())
        nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    a, b = ledger(tmp_path / "alone"), ledger(path)
    assert {k: r["seed"] for k, r in a.items()} == {k: r["seed"] for k, r in b.items()}
    assert kept.items() <= ledger(path, ()).items()
    same = sum(a[k]["response_ids"] == b[k]["response_ids"] for k in a)
    with capsys.disabled():
        print(
            f"\nidentical responses, transformers and ray: {same} of {len(a)} ({same / len(a):.1%}), {len(kept)} drawn when the node died"
        )
    assert same >= 0.97 * len(a)


def test_grading_runs_on_the_nodes_and_a_killed_grader_changes_nothing(nodes, tmp_path):
    two_nodes(nodes)
    checks, queries = {"made_up": f"{own_check.__file__}:where"}, [Query(f"q{i}", "made_up", "?", "1") for i in range(300)]
    settings, said = RayEngine(of={"kind": "scripted", "function": "light:echo"}, address=nodes.address), []
    local = make_grader(checks)
    grader = spread(settings, Grading(actors=2, workers=1), checks, (), local, said.append)
    futures = [grader.submit(q, "x" * i) for i, q in enumerate(queries)]
    first = futures[0].result(300)
    assert first.detail.startswith("ray::"), "graded in a process of an actor"
    os.kill(actors()[0], signal.SIGKILL)
    verdicts = [f.result(300) for f in futures]
    assert [v.correct for v in verdicts] == [bool(i % 2) for i in range(300)]
    assert all(v.detail.startswith("ray::") for v in verdicts)
    grader.close()


def actors() -> list[int]:
    return [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if cmdline(p).startswith(b"ray::_RayHost")]


def cmdline(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_training_through_ray_train_gives_the_weights_of_two_processes_here(nodes, tmp_path):
    """FSDP2, one worker on each of two nodes, everything by way of a folder that both see."""
    two_nodes(nodes)
    model = models.build(tmp_path / "model", std=0.1)
    how = {"processes": 2, "parallel": "fsdp2", "epochs": 1, "device": "cpu", "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3}
    shared = {"address": nodes.address, "folder": str(tmp_path / "shared"), "resources": {"CPU": 1}}
    cluster.see_folder(nodes.address, tmp_path / "shared", "train.cluster.folder")
    figures, models_ = {}, {}
    for name, more in {"here": {}, "ray": {"cluster": shared}}.items():
        made = job(tmp_path / name, rows(24), model, **how, **more)
        steps = []
        figures[name] = TrlTrainer().train(made, lambda step, total, steps=steps: steps.append((step, total)))
        assert steps == [(1, 3), (2, 3), (3, 3)]
        models_[name] = AutoModelForCausalLM.from_pretrained(made.output)
        log = [
            json.loads(line[4:]) for line in (tmp_path / name / "work" / "train.log").read_text().splitlines() if line.startswith("gsi ")
        ]
        assert sorted(x["rank"] for x in log) == [0, 1]
        assert all(x["local"] <= 0.55 * x["whole"] for x in log), "each holds half"
        assert (tmp_path / name / "first_batch.json").exists()
    placed = re.findall(r"^worker (\d) of 2 on node .* \((\w+)\)$", (tmp_path / "ray" / "work" / "train.log").read_text(), re.M)
    assert sorted(rank for rank, _ in placed) == ["0", "1"]
    assert {node for _, node in placed} == {n.node_id for n in nodes.list_all_nodes()[1:]}, (
        "a worker on each node; the head has no processor"
    )
    assert difference(models_["here"], models_["ray"]) < NOISE
    assert figures["ray"]["loss"] == pytest.approx(figures["here"]["loss"], abs=1e-5)
    assert figures["ray"]["processes"] == 2
    assert list((tmp_path / "shared").iterdir()) == [], "nothing stays in the shared folder"

    broken = job(tmp_path / "broken", rows(24), model, **how | {"learning_rate": 1e30}, cluster=shared)
    with pytest.raises(GsiError, match=r"became (nan|inf|-inf).*in the batch of these rows"):
        TrlTrainer().train(broken)


def alone_and_in_actors(of, model, requests, nodes, folder):
    """What an engine answers to the requests alone, its capabilities, two copies of it in actors, and what these say."""
    two_nodes(nodes)
    base = {"model": model, "output_dir": str(folder / "run"), "tasks": [{"name": "gsm8k", "path": "x"}]}
    alone = build.make_engine(load_config(base | {"engine": of}), model, TOKENIZER)
    expected = dict(zip((r.seed for r in requests), run(alone, requests), strict=True))
    alone.close()
    (folder / "pids").unlink()
    said: list[str] = []
    on_nodes = {"kind": "ray", "of": of, "replicas": 2, "address": nodes.address}
    return expected, alone.capabilities, build.make_engine(load_config(base | {"engine": on_nodes}), model, TOKENIZER, said.append), said


def test_vllm_in_actors_by_the_stand_in(nodes, tmp_path):
    """`of: vllm`: each actor holds a child process of its own; one of these is killed in the middle."""
    model = str(models.build(tmp_path / "model"))
    of = {"kind": "vllm", "python": wrapper(tmp_path, f"PYTHONPATH='{FAKE}'", "FAKE_VLLM=''"), "max_rows": 2}
    requests = [request(PROMPTS[i % 5], i, temperature=1.0, max_new_tokens=40) for i in range(400)]
    expected, capabilities, engine, said = alone_and_in_actors(of, model, requests, nodes, tmp_path)
    assert engine.capabilities == capabilities
    work = Once(requests)
    thread = threading.Thread(target=engine.run, args=(work,))
    thread.start()
    wait_for(lambda: len(work.done) > 40)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    thread.join(300)
    assert work.done == expected
    assert any("is lost" in line and "ended by signal SIGKILL" in line for line in said), said
    engine.close()
    assert groups_left(tmp_path) == []


@with_vllm
def test_vllm_itself_in_actors(nodes, llama, tmp_path, capsys):  # noqa: F811
    """A copy of vLLM on each of two nodes, in an environment of its own beside Ray's; one of them is killed in the middle."""
    of = {"kind": "vllm", "python": wrapper(tmp_path, "OMP_NUM_THREADS=1", "VLLM_CPU_KVCACHE_SPACE=1", python=VLLM), "max_rows": 8}
    requests = [request(PROMPTS[i % 5], i, temperature=1.0, max_new_tokens=60) for i in range(200)]
    expected, _, engine, said = alone_and_in_actors(of, llama, requests, nodes, tmp_path)
    wait_for(lambda: all(e.link.poll() for e in engine.engines), 400)
    work, errors = Once(requests), []
    thread = threading.Thread(target=lambda: _noted(errors, engine.run, work))
    thread.start()
    wait_for(lambda: len(work.done) > 20 or errors)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    thread.join(400)
    assert not errors, errors
    assert any("is lost" in line for line in said), said
    same = sum(work.done[seed].ids == one.ids for seed, one in expected.items())
    with capsys.disabled():
        print(f"\nidentical responses, vLLM alone and in two actors with one killed: {same} of {len(expected)}")
    assert len(work.done) == len(requests)
    assert same >= 0.97 * len(expected)
    engine.close()
    wait_for(lambda: not groups_left(tmp_path))  # an actor that ends takes its copy with it a moment later


def _noted(errors: list, call, *args) -> None:
    try:
        call(*args)
    except BaseException as e:
        errors.append(e)


def test_a_folder_that_nodes_do_not_share_is_refused(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        GsiError, match=r"output_dir: node .* cannot use /proc/self/cwd: it is not the same folder there.*train.cluster.folder"
    ):
        cluster.see_folder(nodes.address, Path("/proc/self/cwd"), "output_dir")
    with pytest.raises(GsiError, match=r"train\.cluster\.folder: /proc/x cannot be written on this machine"):
        cluster.see_folder(nodes.address, Path("/proc/x"), "train.cluster.folder")
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_ray_itself_is_said(monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.40.0")
    with pytest.raises(GsiError, match=r"Ray 2.40.0 is installed here, .*\[ray\]"):
        cluster.load_ray()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GsiError, match=r"Ray is not installed here .*guided-self-improvement\[ray\]"):
        cluster.load_ray()
    monkeypatch.undo()
    with pytest.raises(GsiError, match="ray job submit"):
        cluster.connect("ray://10.0.0.1:10001")


def test_a_dead_head_ends_the_run_with_a_message(nodes, tmp_path):
    """The last test: nothing of the cluster can be used after it."""
    ray.shutdown()  # Ray ends every process that is connected to a head that is gone
    path = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(
        json.dumps(on_ray(nodes, SCRIPTED, path, tasks=[{"name": "chain", "args": {"seed": 1, "per_level": 40}}]))
    )
    with (tmp_path / "stderr").open("w") as err:
        driver = subprocess.Popen(
            [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml")], stdout=subprocess.DEVNULL, stderr=err
        )
    wait_for(lambda: drawn(path) >= 40 or driver.poll() is not None)
    nodes.head_node.kill_gcs_server(check_alive=False)
    assert driver.wait(120) == 2
    said = (tmp_path / "stderr").read_text()
    assert "the head of the cluster" in said
    assert "the same command goes on from here" in said
    kept = ledger(path, ())
    gsi_run(
        load_config(scripted.config(path, tasks=[{"name": "chain", "args": {"seed": 1, "per_level": 40}}], engine=SCRIPTED)), reporter=QUIET
    )
    assert kept.items() <= ledger(path, ()).items()

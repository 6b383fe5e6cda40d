"""Several engines behind one queue: the pool itself, processes of this machine, several servers."""

import os
import random
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import light
import models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from light import echo, slow_echo
from test_engine import PROMPTS, TOKENIZER, Queue, request, run
from tiny_server import TinyServer

from gsi import build
from gsi.config import ConfigError, load_config
from gsi.config.engines import OpenAIEngine, RayEngine, TransformersEngine
from gsi.engines.cluster import demand
from gsi.engines.pool import Replicas
from gsi.engines.process import in_process, share_of_gpus
from gsi.engines.remote import Info, RemoteEngine
from gsi.engines.scripted import ScriptedEngine
from gsi.seeds import seed_of
from gsi.types import Completion, EngineLost, GsiError, Query, Stop, Text


class Mortal(ScriptedEngine):
    """Ends after `life` completions, in the middle of its work."""

    def __init__(self, life, rows=4, shuffle=None):
        super().__init__(self.answer, "m", rows, shuffle)
        self.life, self.closed = life, False

    def answer(self, request, model):
        self.life -= 1
        if self.life < 0:
            raise EngineLost("its server burnt down")
        return echo(request, model)

    def close(self):
        self.closed = True


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
def test_every_request_is_answered_once_whoever_dies(lives, n, at_once, shuffle):
    """One engine lives; the others end after so many completions."""
    engines = [Mortal(10**9, shuffle=shuffle), *(Mortal(life, 1 + life % 7, shuffle) for life in lives)]
    said = []
    pool = Replicas([partial(lambda e: e, e) for e in engines], said.append)
    requests = [replace(request("abc", i), query=Query(f"q{i // 5}", "auto", "", "")) for i in range(n)]
    answers = []

    class Counted(Queue):
        def put(self, request, completion):
            answers.append(request.seed)
            super().put(request, completion)

    work = Counted(requests, at_once=at_once)
    pool.run(work)
    assert sorted(answers) == list(range(n))
    assert all(work.done[r.seed].text == f"abc{r.seed}" for r in requests)
    assert all("burnt down" in line and "go to others" in line for line in said)
    pool.run(Queue(requests))  # the dead are not asked again


def test_scores_come_in_order_when_an_engine_dies():
    class Scoring(Mortal):
        def score(self, pairs):
            self.life -= 1
            if self.life < 0:
                raise EngineLost("its server burnt down")
            time.sleep(0.001)
            return [[float(c.text)] for _, c in pairs]

    pool = Replicas([lambda: Scoring(10**9), lambda: Scoring(3), lambda: Scoring(0)], lambda text: None)
    pairs = [(Text("x"), Completion(str(i), (i,), "stop", 1)) for i in range(1000)]
    assert pool.score(pairs) == [[float(i)] for i in range(1000)]


def test_copies_that_are_not_there_yet_hold_nothing_up():
    """A copy on a cluster without room for it: its thread waits, and what it would do the others do."""

    class Waiting:
        name, polled = "waiting", 0

        def poll(self):
            self.polled += 1
            time.sleep(0.002)

        def close(self): ...

    class Scoring(ScriptedEngine):
        def score(self, pairs):
            return [[1.0] for _ in pairs]

    link = Waiting()
    info = Info(frozenset({"ids", "seeds", "prefix"}), None, 0, frozenset(), "", 0)
    pool = Replicas([lambda: Scoring(slow_echo, "m"), lambda: RemoteEngine(link, info)])
    assert len(run(pool, [request("abc", i) for i in range(20)])) == 20
    assert pool.score([(Text("x"), Completion("", (), "stop", 0))] * 500) == [[1.0]] * 500
    assert link.polled > 1


def test_an_engine_that_leaves_something_unanswered_ends_the_run():
    class Lazy(ScriptedEngine):
        def run(self, work):
            work.take(1, 1.0)

    with pytest.raises(RuntimeError, match="replica 1 ended and left 1 requests unanswered"):
        Replicas([lambda: ScriptedEngine(slow_echo, "m"), lambda: Lazy(echo, "m")]).run(
            Queue([request("abc", i) for i in range(100)], at_once=1)
        )


def test_the_last_ones_death_ends_the_run():
    pool = Replicas([lambda: Mortal(3), lambda: Mortal(5)], lambda text: None)
    work = Queue([request("abc", i) for i in range(40)])
    with pytest.raises(EngineLost, match="burnt down"):
        pool.run(work)
    assert len(work.done) == 8
    with pytest.raises(EngineLost):
        pool.run(Queue([request("abc", 1)]))


def test_an_error_of_one_engine_ends_the_run_and_closes_no_eyes():
    class Broken(ScriptedEngine):
        def run(self, work):
            work.take(1, 1.0)
            raise ValueError("a bug")

    pool = Replicas([lambda: ScriptedEngine(echo, "m"), lambda: Broken(echo, "m")])

    class Slow(Queue):
        def take(self, n, timeout=0.0):
            time.sleep(0.001)
            return super().take(min(n, 2), timeout)

    with pytest.raises(ValueError, match="a bug"):
        pool.run(Slow([request("abc", i) for i in range(2000)]))


def test_what_others_finish_while_one_fails_is_handed_over():
    """An engine that hears of the end with three responses in its hands, as one does that ends several in one step."""
    full = threading.Event()

    class Busy(ScriptedEngine):
        def run(self, work):
            taken = work.take(3, 1.0)
            full.set()
            try:
                while True:
                    work.take(0, 0.01)
            finally:
                for r in taken:
                    work.put(r, self._complete(r))

    class Broken(ScriptedEngine):
        def run(self, work):
            full.wait()
            raise ValueError("a bug")

    requests = [request("abc", i) for i in range(20)]
    work = Queue(requests)
    with pytest.raises(ValueError, match="a bug"):
        Replicas([lambda: Busy(echo, "m"), lambda: Broken(echo, "m")]).run(work)
    assert [work.done[r.seed].text for r in requests[:3]] == ["abc0", "abc1", "abc2"]
    assert len(work.done) == 3


def test_stop_and_errors_of_the_workload_end_all_engines():
    class Ending(Queue):
        def __init__(self, error, requests):
            super().__init__(requests)
            self.error = error

        def put(self, request, completion):
            super().put(request, completion)
            if len(self.done) > 20:
                raise self.error

    pool = Replicas([lambda: ScriptedEngine(echo, "m", shuffle=1) for _ in range(3)])
    for error in (Stop(), ValueError("grading broke")):
        with pytest.raises(type(error)):
            pool.run(Ending(error, [request("abc", i) for i in range(500)]))
    assert not [t for t in threading.enumerate() if t.name.startswith("replica")]


def test_a_failed_start_closes_those_that_started():
    first = Mortal(1)

    def fails():
        raise GsiError("no such model")

    with pytest.raises(GsiError, match="no such model"):
        Replicas([lambda: first, fails])
    assert first.closed


def test_attempts_at_one_query_stay_together_where_there_is_room():
    """They share a prompt; another engine takes them only when it would be idle."""
    drawn: list[dict[str, int]] = [{}, {}]

    def noting(i, request, model):
        drawn[i][request.query.id] = drawn[i].get(request.query.id, 0) + 1
        time.sleep(0.0005)
        return "x"

    pool = Replicas([lambda i=i: ScriptedEngine(partial(noting, i), "m", max_rows=4) for i in range(2)])
    pool.run(Queue([replace(request("abc", i), query=Query(f"q{i // 8}", "auto", "", "")) for i in range(800)]))
    split = set(drawn[0]) & set(drawn[1])
    assert len(split) < 50, "of 100 queries"
    assert min(len(d) for d in drawn) > 10


# --------------------------------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(models.build(tmp_path_factory.mktemp("model") / "llama"))


@pytest.fixture(scope="module")
def two(model):
    engine = build.open_engine(TransformersEngine(device="cpu", max_rows=8, replicas=2), model, TOKENIZER)
    yield engine
    engine.close()


@pytest.mark.cluster
def test_two_processes_draw_what_one_draws(two, model, capsys):
    requests = [request(PROMPTS[i % 5], seed_of("s", i), temperature=1.0) for i in range(40)]
    alone = build.open_engine(TransformersEngine(device="cpu", max_rows=8), model, TOKENIZER)
    same = sum(a == b for a, b in zip(run(alone, requests), run(two, requests), strict=True))
    with capsys.disabled():
        print(f"\nidentical responses, one engine and two processes: {same} of 40")
    assert same >= 39
    assert all(e.stats["decode_tokens"] > 0 for e in two.engines), "both work"
    assert two.stats["decode_tokens"] == sum(e.stats["decode_tokens"] for e in two.engines)
    assert (two.capabilities, two.context, two.stop_ids, two.parameters) == (
        alone.capabilities,
        alone.context,
        alone.stop_ids,
        alone.parameters,
    )


@pytest.mark.cluster
def test_processes_score_as_one_engine_does(two, model):
    pairs = [(Text("", (5, 6, 7)), Completion("", (8, 9 + i % 3), "stop", 2)) for i in range(150)]
    alone = build.open_engine(TransformersEngine(device="cpu", max_rows=8), model, TOKENIZER)
    for got, expected in ((two.score(pairs), alone.score(pairs)), (two.entropies(pairs), alone.entropies(pairs))):
        assert [pytest.approx(e, abs=1e-4) for e in expected] == got


@pytest.mark.cluster
def test_stop_reaches_a_process_and_it_serves_on(two):
    class Stopping(Queue):
        def take(self, n, timeout=0.0):
            if len(self.done) >= 5:
                raise Stop
            return super().take(n, timeout)

    work = Stopping([request("abc", i, temperature=1.0) for i in range(200)], at_once=4)
    with pytest.raises(Stop):
        two.run(work)
    assert len(work.done) < 200
    assert len(run(two, [request("abc", 7)])) == 1


def test_a_killed_process_loses_nothing_and_its_log_is_named():
    said = []
    pool = Replicas([partial(in_process, light.engine, f"scripted, replica {i}", {}) for i in range(2)], said.append)
    victim = pool.engines[0].link

    class Killing(Queue):
        def put(self, request, completion):
            assert request.seed not in self.done
            super().put(request, completion)
            if len(self.done) == 30:
                os.kill(victim.info.pid, signal.SIGKILL)

    requests = [request("abc", i) for i in range(200)]
    random.Random(1).shuffle(requests)
    work = Killing(requests)
    pool.run(work)
    assert {s: c.text for s, c in work.done.items()} == {i: f"abc{i}" for i in range(200)}
    assert len(said) == 1
    assert "ended by signal 9" in said[0]
    assert str(victim.log) in said[0]
    pool.close()


def test_errors_cross_the_process_border():
    with pytest.raises(GsiError, match="has no such model"):
        in_process(light.refusing, "scripted", {})
    engine = in_process(partial(light.engine, light.broken), "scripted", {})
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        engine.run(Queue([request("abc", 1)]))
    engine.close()


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert share_of_gpus(2, 2) == {"CUDA_VISIBLE_DEVICES": "4,5"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    assert share_of_gpus(1, 1) == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    with pytest.raises(GsiError, match="too few GPUs for replica 1 with 2 each; set replicas: 1"):
        share_of_gpus(1, 2)


def test_a_copy_without_a_gpu_is_refused_where_others_have_one(model, monkeypatch):
    """What this process sees and the copies do not: more of them than GPUs."""
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(GsiError, match=r"torch sees no CUDA device.*as many engine.replicas as GPUs"):
        build.open_engine(TransformersEngine(max_rows=8, replicas=2), model, TOKENIZER).close()


# --------------------------------------------------------------------------------------- servers


def test_an_actor_asks_for_the_gpus_of_all_its_copies():
    """One actor per node of eight GPUs, say, with a copy on each: fewer calls for the driver."""
    gpus, none = (SimpleNamespace(cluster_resources=lambda r=r: r) for r in ({"GPU": 8.0}, {"CPU": 8.0}))
    for of, asked in (
        ({"kind": "vllm", "replicas": 4, "tensor_parallel": 2}, 8.0),
        ({"kind": "transformers", "replicas": 2}, 2.0),
        ({"kind": "vllm"}, 1.0),
    ):
        assert demand(RayEngine(of=of), gpus) == {"CPU": 1.0, "GPU": asked}
        assert demand(RayEngine(of=of), none) == {"CPU": 1.0}


def test_several_servers_share_the_work_and_survive_one(model):
    with TinyServer(model, TOKENIZER, max_rows=8) as a, TinyServer(model, TOKENIZER, max_rows=8) as b:
        said = []
        engine = build.open_engine(OpenAIEngine(url=(a.url, b.url), concurrency=4, retries=0), model, TOKENIZER, said.append)
        requests = [request(PROMPTS[i % 5], i, temperature=1.0) for i in range(40)]
        first = run(engine, requests)
        assert all(e.stats["decode_tokens"] > 0 for e in engine.engines)

        class Killing(Queue):
            def put(self, request, completion):
                super().put(request, completion)
                if len(self.done) == 10:
                    a.close()

        work = Killing(requests)
        engine.run(work)
        assert set(work.done) == set(range(40))
        same = sum(work.done[r.seed].ids == c.ids for r, c in zip(requests, first, strict=True))
        assert same >= 36, f"{40 - same} of 40 differ"
        assert len(said) == 1
        assert a.url in said[0]
        engine.close()


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"kind": "vllm", "options": {"data_parallel_size": 4}}, "data_parallel_size is `replicas: 4` here"),
        ({"kind": "openai", "url": ["http://a/v1", "http://a/v1"]}, "names a server twice"),
        ({"kind": "openai", "url": ["http://a:1/v1", "http://a:2/v1"], "launch": "serve {model}"}, r"lacks {port}, and 2 servers"),
        ({"kind": "openai", "url": []}, "engine.url"),
        ({"kind": "transformers", "device": "cuda:1", "replicas": 2}, "device names one"),
        ({"kind": "ray", "of": "vlm"}, "engine.of"),
        ({"kind": "ray", "of": {"kind": "vllm", "max_row": 3}}, "did you mean 'max_rows'?"),
        ({"kind": "ray", "of": "transformers", "resources": {"GPU": 0}}, "engine.resources.GPU"),
    ],
)
def test_bad_settings_are_refused(engine, said):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?").replace("{", r"\{")):
        load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k", "path": "x"}], "engine": engine})


def test_the_engine_may_move_to_a_cluster_between_two_starts_of_a_run(tmp_path):
    """Where samples are drawn is placement; which function draws them is not."""
    import scripted

    from gsi import run as gsi_run
    from gsi.progress import Reporter
    from gsi.runfolder.drift import changes
    from gsi.runfolder.state import read_state

    one = scripted.config(tmp_path / "run", iterations=1)
    gsi_run(load_config(one), reporter=Reporter("quiet"))
    state = read_state(tmp_path / "run")
    moved = load_config(one | {"engine": {"kind": "ray", "of": one["engine"], "replicas": 4}})
    assert changes(tmp_path / "run", moved, state) == {}
    other = load_config(one | {"engine": {"kind": "ray", "of": {"kind": "scripted", "function": "other:one"}}})
    assert "engine.function" in changes(tmp_path / "run", other, state)

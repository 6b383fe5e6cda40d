"""The vLLM engine. First its own side of the pipe, against a stand-in for vLLM (tests/fake_vllm); then, where
GSI_VLLM_PYTHON names an interpreter that has vLLM (`make test-vllm`), the real one on this machine."""

import inspect
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import models
import pytest
import test_engine_contract as contract
import torch
from distribution import check_first_tokens
from test_engine import PROMPTS, TOKENIZER, Queue, request, run
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import gsi
from gsi import build
from gsi.config.engines import VllmEngine as Settings
from gsi.engines.replica import environment
from gsi.engines.transformers import TransformersEngine
from gsi.engines.vllm import VllmEngine
from gsi.lab.base import Recipe
from gsi.lab.base import build as build_chain
from gsi.progress import Reporter
from gsi.seeds import seed_of
from gsi.stall import Watched
from gsi.types import GsiError, Stop

HERE = Path(__file__).parent
FAKE = HERE / "fake_vllm"
QUIET = Reporter("quiet")


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """Logs of processes that died stay where they are; here they go with the test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def wrapper(folder: Path, *exports: str, python: str = sys.executable) -> str:
    """An interpreter that notes every start of itself in `pids`."""
    path = folder / "python"
    lines = [f"echo $$ >> '{folder}/pids'", *(f"export {e}" for e in exports), f"exec '{python}' \"$@\""]
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def groups_left(folder: Path) -> list[int]:
    """Process groups of children that still have a member."""
    left = []
    for pid in pids(folder):
        try:
            os.killpg(pid, 0)
            left.append(pid)
        except ProcessLookupError:
            pass
    return left


def config(model, output: Path, python: str, **engine):
    return {
        "model": str(model),
        "output_dir": str(output),
        "iterations": 2,
        "tasks": [{"name": "made_up", "check": f"{FAKE}/parts.py:ends"}],
        "prompt": {"template": "{question}"},
        "sample": {"k": 4, "wanted": 2, "max_new_tokens": 30},
        "engine": {"kind": "vllm", "python": python} | engine,
        "train": {"kind": "scripted", "function": f"{FAKE}/parts.py:copy_model"},
        "evaluate": {"validation": 0.2},
        "keep_models": "all",
    }


QUERIES = [gsi.Query(f"q{i}", "made_up", f"{i} + {i} = ", str(2 * i)) for i in range(30)]


def rollouts(path: Path) -> dict:
    """(query, iteration, attempt) -> the rest of the ledger's row."""
    if not (path / "ledger.sqlite").exists():
        return {}
    with sqlite3.connect(path / "ledger.sqlite") as db:
        try:
            return {
                r[:3]: r[3:] for r in db.execute("select query_id, iteration, attempt, response, response_ids, created_at from rollouts")
            }
        except sqlite3.OperationalError:  # the schema is not there yet
            return {}


# --------------------------------------------------------------------------------------- with the stand-in


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(models.build(tmp_path_factory.mktemp("model") / "llama"))


@pytest.fixture
def fake(tmp_path, tiny, monkeypatch):
    """fake(mode, **settings) -> an engine over the stand-in; every one is closed at the end, and must leave nothing."""
    engines = []
    python = wrapper(tmp_path, f"PYTHONPATH='{FAKE}'")

    def start(mode="", **settings):
        monkeypatch.setenv("FAKE_VLLM", mode)
        monkeypatch.setenv("FAKE_VLLM_STARTS", str(tmp_path / "starts.jsonl"))
        engines.append(build.open_engine(Settings(**{"python": python} | settings), tiny, TOKENIZER))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()
    assert not (tmp_path / "pids").exists() or groups_left(tmp_path) == []


def starts(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]


def test_every_request_comes_back_once_with_ids_text_and_counts(fake, tiny):
    engine = fake(max_rows=4)
    requests = [request(PROMPTS[i % 5], i, temperature=1.0, max_new_tokens=30) for i in range(40)]
    done = run(engine, requests, at_once=3)
    for c in done:
        assert c.finish_reason == ("stop" if c.ids[-1] == 0 else "length")
        assert 0 not in c.ids[:-1]
        assert len(c.ids) == c.generated_tokens <= 30
        assert c.text == TOKENIZER.decode(list(c.ids), skip_special_tokens=True)
    assert engine.stats["decode_tokens"] == sum(c.generated_tokens for c in done)
    assert engine.stats["prefill_tokens"] + engine.stats["reused_tokens"] == sum(r.prompt.n_tokens for r in requests)
    assert engine.parameters == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny).parameters())
    assert engine.stop_ids == frozenset({0})
    assert run(engine, requests) == done


def test_requests_that_cannot_run_are_data(fake):
    engine = fake(max_length=40)
    unknown = replace(request("abc", 4), prompt=gsi.types.Text("abc", (5, 6, 10_000)))
    long, fits, empty, refused = run(engine, [request("x" * 50, 1), request("x" * 30, 2, max_new_tokens=50), request("", 3), unknown])
    assert (long.finish_reason, long.generated_tokens, long.detail) == ("too_long", 0, "50 tokens, the context holds 40")
    assert fits.generated_tokens <= 10
    assert empty.finish_reason == "error"
    assert (refused.finish_reason, refused.detail) == ("error", "Token id out of vocabulary")


def test_the_given_part_is_read_and_not_returned(fake):
    engine = fake()
    joined, apart = request("2 + 2 = so ", 1, temperature=1.0), request("2 + 2 = ", 1, given="so ", temperature=1.0)
    assert run(engine, [joined]) == run(engine, [apart])


def test_the_engine_is_kept_full_but_takes_no_more_than_it_needs(fake):
    class Watched(Queue):
        most, out = 0, 0

        def take(self, n, timeout=0.0):
            taken = super().take(n, timeout)
            self.out += len(taken or ())
            self.most = max(self.most, self.out)
            return taken

        def put(self, request, completion):
            self.out -= 1
            super().put(request, completion)

    work = Watched([request("abc", i, temperature=1.0) for i in range(200)])
    fake(max_rows=16).run(work)
    assert 16 < work.most <= 24
    assert len(work.done) == 200


def test_stop_abandons_what_is_in_flight_and_the_engine_serves_on(fake):
    class Stopping(Queue):
        def take(self, n, timeout=0.0):
            if len(self.done) >= 5:
                raise Stop
            return super().take(n, timeout)

    engine = fake(max_rows=4)
    requests = [request("abc", i, temperature=1.0, max_new_tokens=100) for i in range(50)]
    work = Stopping(requests, at_once=4)
    with pytest.raises(Stop):
        engine.run(work)
    assert len(work.done) < 50
    again = run(engine, requests)
    assert all(again[requests.index(r)] == c for r in requests if (c := work.done.get(r.seed)))


def test_an_error_of_the_workload_propagates(fake):
    class Failing(Queue):
        def put(self, request, completion):
            raise ValueError("grading broke")

    with pytest.raises(ValueError, match="grading broke"):
        fake().run(Failing([request("abc", 1)]))


def test_an_engine_that_hangs_stops_the_run_and_leaves_nothing(fake):
    engine = fake("stuck@3", max_rows=4)  # fewer rows than requests: it is full, and asks for nothing by itself
    work = Queue([request("a b c", seed=i) for i in range(40)])
    with pytest.raises(GsiError, match=r"engine vllm: it hangs: .*engine\.stall"), Watched(work, engine, "vllm", 0.5) as watched:
        engine.run(watched)


@pytest.mark.parametrize(
    ("mode", "said"), [("kill@7", "is gone, ended by signal SIGKILL"), ("raise@7", "RuntimeError: CUDA error: made up")]
)
def test_a_dead_process_stops_the_run_with_its_log(fake, mode, said):
    engine = fake(mode)
    work = Queue([request("abc", i, temperature=1.0, max_new_tokens=3 + i) for i in range(20)])
    with pytest.raises(GsiError, match=said) as error:
        engine.run(work)
    assert 0 < len(work.done) < 20
    assert "a library's greeting on standard output" in str(error.value)
    log = Path(str(error.value).split("(log: ")[1].split(")")[0])
    assert log.exists()
    with pytest.raises(GsiError, match=said):
        engine.run(Queue([request("abc", 1)]))


@pytest.mark.parametrize(
    ("mode", "settings", "said"),
    [
        ("", {"python": None}, "has no vllm. .* `python3 -m venv vllm-env && vllm-env/bin/pip install vllm`, and set engine.python"),
        ("", {"python": "/no/such/python"}, "engine.python: '/no/such/python' cannot be started: No such file"),
        ("", {"options": {"max_num_sequences": 3}}, "unexpected keyword argument 'max_num_sequences'"),
        ("raise@1", {}, "it did not start: RuntimeError: CUDA error: made up"),
        ("hang", {"start_timeout": 1.0}, "engine.start_timeout"),
    ],
)
def test_what_keeps_it_from_starting_is_said(fake, tmp_path, mode, settings, said):
    with pytest.raises(GsiError, match=said):
        fake(mode, **settings)


def test_an_unknown_model_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(GsiError, match="no-such-model"):
        VllmEngine(Settings(python="/no/such/python"), str(tmp_path / "no-such-model"), TOKENIZER)


def test_arguments_reach_vllm_and_defaults_without_a_gpu_give_way(fake, tmp_path):
    fake(max_rows=7, max_length=99, dtype="bfloat16", tensor_parallel=2, options={"block_size": 64, "enforce_eager": False})
    fake(max_length=1000)
    first, second = (s["args"] for s in starts(tmp_path))
    assert (first["max_num_seqs"], first["max_model_len"], first["dtype"], first["tensor_parallel_size"]) == (7, 99, "bfloat16", 2)
    assert (first["block_size"], first["enforce_eager"], first["enable_prefix_caching"]) == (64, False, True)
    assert (second["block_size"], second["enforce_eager"], second["dtype"], second["enable_chunked_prefill"]) == (
        32,
        True,
        "float32",
        False,
    )
    assert second["max_model_len"] == 128, "max_length is no more than the model's context"


def test_replicas_share_the_gpus_and_the_work(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    engine = fake(max_rows=8, tensor_parallel=2, replicas=2)
    assert sorted(s["gpus"] for s in starts(tmp_path)) == ["4,5", "6,7"]
    requests = [replace(request(PROMPTS[i // 4 % 5], i, temperature=1.0), query=QUERIES[i // 4]) for i in range(100)]
    done = run(engine, requests)
    assert len(done) == 100
    assert all(e.stats["decode_steps"] > 0 for e in engine.engines)
    pids = [s["pid"] for s in starts(tmp_path)]
    os.kill(pids[0], signal.SIGKILL)
    assert run(engine, requests) == done, "the other one draws all of it"


def test_the_childs_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    own, other = environment(None, None, 1), environment("/its/python", None, 1)
    assert own["PYTHONPATH"] == "/mine"
    assert "PYTHONPATH" not in other, "another environment's packages do not mix with this one's"
    assert other["VLLM_CPU_KVCACHE_SPACE"] == "7"


def test_the_process_ends_when_its_parent_is_killed(fake, tmp_path, tiny):
    code = f"""
import itertools
from gsi.config.engines import VllmEngine as Settings
from gsi.engines.scripted import ByteTokenizer
from gsi.engines.vllm import VllmEngine
from gsi.types import Query, Request, Sampling, Text

class Endless:
    seeds = itertools.count()
    def take(self, n, timeout=0.0):
        return [Request(Query("q", "t", "", ""), 0, 0, Text("ab", (5, 6)), Text("", ()), Sampling(1.0), next(self.seeds)) for _ in range(n)]
    def put(self, request, completion):
        if next(self.seeds) > 500:
            print("under way", flush=True)

VllmEngine(Settings(python={wrapper(tmp_path, f"PYTHONPATH='{FAKE}'")!r}), {tiny!r}, ByteTokenizer()).run(Endless())
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "under way\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while groups_left(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert groups_left(tmp_path) == []


def test_one_start_serves_one_model_and_a_run_goes_on_after_its_death(tmp_path, tiny, monkeypatch):
    """A whole run over the stand-in: one start for each of three models, and one more for the one that was killed."""
    python = wrapper(tmp_path, f"PYTHONPATH='{FAKE}'")
    settings = config(tiny, tmp_path / "run", python, max_rows=8)
    monkeypatch.setenv("FAKE_VLLM", "kill@60")
    with pytest.raises(GsiError, match="SIGKILL"):
        gsi.run(settings, QUERIES, reporter=QUIET)
    before = rollouts(tmp_path / "run")
    assert 0 < len(before) < 24 * 4
    monkeypatch.setenv("FAKE_VLLM", "")
    gsi.run(settings, QUERIES, reporter=QUIET)
    after = rollouts(tmp_path / "run")
    assert before.items() <= after.items()
    assert len(after) == 2 * 24 * 4
    assert len(pids(tmp_path)) == 1 + 3
    assert json.loads((tmp_path / "run" / "run.json").read_text())["engine_starts"] == 1 + 3
    assert groups_left(tmp_path) == []


# --------------------------------------------------------------------------------------- with vLLM itself

REAL = os.environ.get("GSI_VLLM_PYTHON")


def missing() -> str:
    """Why the tests below are skipped; empty = they run."""
    if REAL is None:
        return "GSI_VLLM_PYTHON names no interpreter with vLLM; `make test-vllm` makes one and sets it"
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return f"{REAL} has no vllm" if subprocess.run([REAL, "-c", code], check=False).returncode else ""


with_vllm = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A random Llama with heads of 32, the smallest that vLLM has a CPU kernel for."""
    path = tmp_path_factory.mktemp("model") / "llama"
    shared = {
        "vocab_size": len(TOKENIZER),
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": None,
        "max_position_embeddings": contract.CONTEXT,
    }
    torch.manual_seed(0)
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    LlamaForCausalLM(LlamaConfig(initializer_range=0.3, **small, **shared)).save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def engine(model):
    engine = VllmEngine(Settings(python=REAL, max_rows=64), model, TOKENIZER)
    yield engine
    group = engine._child._process.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


@pytest.fixture(scope="module")
def embedded(model):
    return TransformersEngine(model, TOKENIZER, max_rows=64)


PROMISES = {
    name: check for name, check in vars(contract).items() if name.startswith("test_") and "made" in inspect.signature(check).parameters
}
del PROMISES["test_a_dead_engine_stops_the_run"]  # the last test below kills one


@with_vllm
@pytest.mark.parametrize("check", PROMISES)
def test_the_contract_of_every_engine(check, engine, model, tmp_path):
    made = contract.Made(engine, lambda: None, lambda: len(engine._child.flight))
    given = {"made": made, "folder": model, "tmp_path": tmp_path}
    PROMISES[check](**{name: given[name] for name in inspect.signature(PROMISES[check]).parameters})


@with_vllm
def test_greedy_is_token_identical_to_the_embedded_engine(engine, embedded):
    """Both in float32. Two kernels may round a near tie differently, so one response in fifty may part."""
    requests = [request(f"{PROMPTS[i % 5]}{i}", i, max_new_tokens=20 + i) for i in range(50)]
    ours, theirs = run(engine, requests), run(embedded, requests)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert same >= 49, f"{50 - same} of 50 greedy responses differ"
    assert {c.finish_reason for c in ours} == {"stop", "length"}
    assert (engine.parameters, engine.stop_ids, engine.context) == (embedded.parameters, embedded.stop_ids, embedded.context)


@with_vllm
def test_samples_depend_on_the_seed_and_not_on_the_batch(engine):
    requests = [request(PROMPTS[i % 5], seed_of("s", i), temperature=1.0, max_new_tokens=40) for i in range(100)]
    together, apart = run(engine, requests), run(engine, requests[:30], at_once=1)
    same = sum(a == b for a, b in zip(together, apart, strict=False))
    assert same >= 29, f"{30 - same} of 30 responses differ with the batch"  # floating point may flip one
    other = run(engine, [replace(r, seed=r.seed + 1) for r in requests])
    assert sum(a == b for a, b in zip(together, other, strict=True)) < 20


@with_vllm
@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.0, 0.6)])
def test_samples_have_the_models_distribution(engine, embedded, temperature, top_p):
    settings = {"temperature": temperature, "top_p": top_p, "max_new_tokens": 1}
    check_first_tokens(partial(run, engine), embedded.model, [request("1 + ", seed_of("chi", i), **settings) for i in range(2000)])


@with_vllm
def test_log_probabilities_are_the_models_at_temperature_1(engine, embedded):
    requests = [request(p, seed_of("logprobs", p), temperature=0.7, logprobs=True) for p in PROMPTS]
    done = run(engine, requests)
    scores = embedded.score([(r.prompt, c) for r, c in zip(requests, done, strict=True)])
    for c, expected in zip(done, scores, strict=True):
        assert c.logprobs == pytest.approx(expected, abs=1e-3)


@with_vllm
def test_a_given_prefix_is_continued(engine):
    whole = run(engine, [request("2 + 2 = ", 1, max_new_tokens=15)])[0]
    head = TOKENIZER.decode(list(whole.ids[:6]))
    rest = run(engine, [request("2 + 2 = ", 2, given=head, max_new_tokens=9)])[0]
    assert rest.ids == whole.ids[6:15]
    assert head + rest.text == whole.text


@with_vllm
def test_stop_strings_end_a_response_as_in_the_embedded_engine(engine, embedded):
    free = run(engine, [request("2 + 2 = ", 1, max_new_tokens=30)])[0]
    requests = [request("2 + 2 = ", i, max_new_tokens=30, stop=(free.text[at : at + 2],)) for i, at in enumerate((3, 7, 12))]
    ours, theirs = run(engine, requests), run(embedded, requests)
    assert ours == theirs
    assert all(c.finish_reason == "stop" and len(c.ids) < c.generated_tokens < 30 for c in ours)


@with_vllm
def test_prompts_share_their_prefix_and_long_ones_are_data(engine):
    before = dict(engine.stats)
    requests = [request("a prompt of more than thirty-two tokens, shared", 500 + i, temperature=1.0) for i in range(16)]
    run(engine, requests)
    assert engine.stats["reused_tokens"] - before["reused_tokens"] == 15 * 32, "one block of 32 is computed once"
    long, last = run(engine, [request("x" * 96, 1), request("x" * 95, 2)])
    assert (long.finish_reason, last.generated_tokens) == ("too_long", 1)


@with_vllm
def test_seeds_hold_when_prompts_exceed_one_step(model):
    """Without our default, vLLM would split a prompt over two steps here, and die of it (its CPU generators cannot be rewound)."""
    engine = VllmEngine(Settings(python=REAL, max_rows=16, options={"max_num_batched_tokens": 100}), model, TOKENIZER)
    try:
        requests = [request(f"{i}" + "a long prompt " * 5, seed_of("long", i), temperature=1.0) for i in range(12)]
        together = run(engine, requests)
        assert together == run(engine, requests, at_once=1)
    finally:
        engine.close()


@with_vllm
def test_a_model_that_vllm_cannot_run_is_refused_at_its_start(tiny):
    with pytest.raises(GsiError, match="Unsupported CPU attention configuration: head_dim=8"):
        VllmEngine(Settings(python=REAL), tiny, TOKENIZER)


@with_vllm
@pytest.mark.slow
def test_a_whole_run_with_its_process_killed_once(tmp_path, capsys):
    """State reset on chain: quotas, guided continuations, a kill in the middle, one start per model, the contract's files."""
    base = tmp_path / "base"
    build_chain(base, 1, recipe=Recipe(examples=9000, level_rate=1.5, heads=2))
    python = wrapper(tmp_path, python=REAL)
    settings = config(base, tmp_path / "run", python, max_rows=4) | {
        "strategy": "state_reset",
        "accept": "steps",
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 16, "levels": [1, 2, 3, 7]}}],
        "sample": {"k": 4, "wanted": 2, "max_extra": 4, "max_new_tokens": 64},
        "evaluate": {"validation": 0.25},
        "iterations": 1,
    }

    def kill_when_under_way():
        while not rollouts(tmp_path / "run"):
            time.sleep(0.002)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_when_under_way)
    killer.start()
    with pytest.raises(GsiError, match="SIGKILL"):
        gsi.run(settings, reporter=QUIET)
    killer.join()
    assert groups_left(tmp_path) == []
    before = rollouts(tmp_path / "run")
    result = gsi.run(settings, reporter=QUIET)
    after = rollouts(tmp_path / "run")
    assert 0 < len(before) < len(after)
    assert before.items() <= after.items(), "a committed rollout was lost or drawn again"
    assert result.metrics[1]["sample/accepted"] > 0
    assert len(pids(tmp_path)) == 1 + 2, "one start for iter_0, one for iter_1, and one that was killed"
    assert groups_left(tmp_path) == []
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        per_query = db.execute(
            "select count(*), sum(steps_ok), sum(given != ''), min(level) from rollouts where iteration = 0 group by query_id"
        ).fetchall()
    assert all(n == 4 for n, right, _, _ in per_query if (right or 0) >= 2 and n <= 4)
    assert {n for n, _, _, _ in per_query} <= set(range(4, 9))
    assert any(guided for _, _, guided, _ in per_query), "hard queries were guided"
    other = config(base, tmp_path / "embedded", python) | settings
    other = other | {"output_dir": str(tmp_path / "embedded"), "engine": {"kind": "transformers"}}
    gsi.run(other, reporter=QUIET)
    greedy = []
    for path in ("run", "embedded"):
        with sqlite3.connect(tmp_path / path / "ledger.sqlite") as db:
            greedy.append(dict(db.execute("select query_id, response from evaluations where iteration = 0 and attempt = 0").fetchall()))
    same = sum(greedy[0][q] == greedy[1][q] for q in greedy[0])
    with capsys.disabled():
        print(f"\ngreedy responses of vLLM equal to the embedded engine's on the lab's model: {same} of {len(greedy[0])}")
    assert same >= 0.9 * len(greedy[0])

"""Training that is killed, starved of memory, or spread over processes: real children, real signals. `make test-training`."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import models
import pyarrow.parquet as pq
import pytest
import torch
from test_training import NOISE, difference, job, rows, write
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from gsi.lab.base import Recipe
from gsi.lab.base import build as build_base
from gsi.train.launch import TrlTrainer

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return models.build(tmp_path_factory.mktemp("model"), std=0.1)


def trained(folder: Path, model: Path, table=None, say=None, **changes):
    """(figures, model) of a training in its own process."""
    made = job(folder, table or rows(40), model, **{"epochs": 3, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3} | changes)
    figures = TrlTrainer().train(made, say=say)
    return figures, AutoModelForCausalLM.from_pretrained(made.output)


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    """One process, nothing in its way."""
    return trained(tmp_path_factory.mktemp("alone"), model)


START = """
import sys, json
sys.path[:0] = [{here!r}]
from pathlib import Path
from test_training_long import trained
import test_training_long
print("started", flush=True)
trained(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
"""


def killed(folder: Path, model: Path, when, **changes) -> None:
    """A parent that is killed with SIGKILL while its training child works."""
    code = START.format(here=str(Path(__file__).parent))
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder), str(model), json.dumps(changes)])
    while parent.poll() is None and not when():
        time.sleep(0.002)
    assert parent.poll() is None, "it finished before it could be killed"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while children_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children_of(folder) == [], "the children end with their parent"


def children_of(folder: Path) -> list[int]:
    """Processes that have this folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def step_reached(folder: Path, step: int) -> bool:
    return any(int(p.parent.name[11:]) >= step for p in (folder / "work").glob("checkpoint-*/complete"))


@pytest.mark.parametrize(
    "changes", [{}, {"processes": 2}, {"processes": 2, "parallel": "fsdp2"}, {"method": "lora"}], ids=["one", "ddp", "fsdp2", "lora"]
)
def test_killed_inside_training_it_goes_on_to_the_same_weights(tmp_path, model, alone, changes):
    said = []
    killed(tmp_path / "a", model, lambda: step_reached(tmp_path / "a", 4), checkpoint_steps=2, **changes)
    figures, ours = trained(tmp_path / "a", model, say=said.append, checkpoint_steps=2, **changes)
    assert any("training goes on from step" in text for text in said)
    calm_figures, calm = alone if changes != {"method": "lora"} else trained(tmp_path / "b", model, method="lora")
    assert difference(ours, calm) < (1e-6 if changes.get("processes", 1) == 1 else NOISE)
    assert figures["loss"] == pytest.approx(calm_figures["loss"], abs=1e-5)
    assert figures["steps"] == calm_figures["steps"] == 15
    assert len(list((tmp_path / "a" / "work").glob("checkpoint-*"))) == 1, "one checkpoint at a time; the stage removes the folder"


def test_a_checkpoint_that_was_cut_short_is_not_used(tmp_path, model, alone):
    killed(tmp_path, model, lambda: step_reached(tmp_path, 4), checkpoint_steps=2)
    for folder in (tmp_path / "work").glob("checkpoint-*"):
        (folder / "complete").unlink(missing_ok=True)
        (folder / "optimizer.pt").write_bytes(b"half")
    said = []
    _, ours = trained(tmp_path, model, say=said.append)
    assert not any("goes on from step" in text for text in said)
    assert difference(ours, alone[1]) < 1e-6


def test_checkpoints_of_other_rows_are_forgotten(tmp_path, model):
    killed(tmp_path, model, lambda: step_reached(tmp_path, 4), checkpoint_steps=2)
    said = []
    trained(tmp_path, model, rows(40, seed=5), say=said.append)
    assert not any("goes on from step" in text for text in said)


def test_two_ddp_processes_give_the_loss_of_one(tmp_path, model, alone):
    figures, ours = trained(tmp_path, model, processes=2)
    assert figures["processes"] == 2
    assert figures["loss"] == pytest.approx(alone[0]["loss"], abs=1e-5)
    assert difference(ours, alone[1]) < NOISE
    log = [json.loads(line[4:]) for line in (tmp_path / "work" / "train.log").read_text().splitlines() if line.startswith("gsi ")]
    assert sorted(x["rank"] for x in log) == [0, 1]
    assert all(x["kind"] == "DistributedDataParallel" and x["local"] == x["whole"] for x in log)
    assert all(x["rows"] == 60 for x in log), "each of the two trained on half of 3 x 40 rows"


def test_two_fsdp2_processes_give_the_loss_of_one_and_really_shard(tmp_path, model, alone):
    figures, ours = trained(tmp_path, model, processes=2, parallel="fsdp2")
    assert figures["loss"] == pytest.approx(alone[0]["loss"], abs=1e-5)
    assert difference(ours, alone[1]) < NOISE
    log = [json.loads(line[4:]) for line in (tmp_path / "work" / "train.log").read_text().splitlines() if line.startswith("gsi ")]
    assert sorted(x["rank"] for x in log) == [0, 1]
    assert all("FSDP" in x["kind"] and x["local"] <= 0.55 * x["whole"] for x in log), log
    assert sum(x["local"] for x in log) == log[0]["whole"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not [key for key in config if "distributed" in key or "fsdp" in key]
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("ab")["input_ids"] == AutoTokenizer.from_pretrained(model)("ab")["input_ids"]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_lora_with_early_stopping_in_two_processes(tmp_path, model, parallel):
    """Held-out loss over both processes, the best adapter brought back, merged into a plain model: as one process does it."""
    held = [r | {"query_id": f"held{i}"} for i, r in enumerate(rows(7, seed=9))]
    changes = {"method": "lora", "learning_rate": 3e-2, "epochs": 6, "early_stopping": {"share": 0.1, "evaluations": 30, "patience": 3}}
    found = {}
    for name, how in {"one": {}, "two": {"processes": 2, "parallel": parallel}}.items():
        write(tmp_path / name / "validation.parquet", held)
        found[name] = trained(tmp_path / name, model, **changes, **how)
    (one, a), (two, b) = found["one"], found["two"]
    assert one["best_step"] == two["best_step"] < one["steps"] == two["steps"]
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-4)
    assert difference(a, b) < 10 * NOISE


def test_out_of_memory_halves_the_micro_batch_and_ends_at_the_same_weights(tmp_path):
    """A real refusal of memory: the children's address space is limited to a little more than 8 rows at a time take."""
    wide, tokenizer = tmp_path / "model", models.tokenizer()
    shape = {
        "hidden_size": 32,
        "intermediate_size": 2048,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=None, **shape)).save_pretrained(wide)
    tokenizer.save_pretrained(wide)
    table = [
        {"input_ids": [5 + i % 80] * 900 + [0], "loss_mask": [0] + [1] * 900, "weight": 1.0, "query_id": f"q{i}", "attempt": 0}
        for i in range(32)
    ]
    changes = {"epochs": 1, "batch_size": 32}
    with largest(tmp_path / "calm") as peak:
        calm, ours = trained(tmp_path / "calm", wide, table, micro_batch_size=8, **changes)
    said = []
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (peak[0] + (300 << 20), before[1]))
    try:
        figures, starved = trained(tmp_path / "starved", wide, table, said.append, micro_batch_size=32, **changes)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert any("out of memory with 32 rows at a time; going on with 16" in text for text in said)
    assert figures["micro_batch_size"] in (16, 8)
    assert figures["loss"] == pytest.approx(calm["loss"], abs=1e-5)
    assert difference(starved, ours) < NOISE


@contextmanager
def largest(folder: Path):
    """The largest address space, in bytes, that a child working in this folder had."""
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.01):
            for process in children_of(folder):
                try:
                    status = Path(f"/proc/{process}/status").read_text()
                except OSError:
                    continue
                if "VmPeak:" in status:
                    peak[0] = max(peak[0], int(status.split("VmPeak:")[1].split()[0]) << 10)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


# --------------------------------------------------------------------------------------- in a whole run


def test_replay_interpolation_early_stopping_and_perplexity_in_a_run(tmp_path, capsys):
    """Two iterations of a real tiny model with every switch on: what the run folder says of them holds against its files."""
    import gsi
    from gsi.progress import Reporter

    base = tmp_path / "base"
    build_base(base, 1, recipe=Recipe(examples=12000, level_rate=2.0))
    train = {
        "epochs": 2, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 8, "replay": 0.5,
        "interpolate": {"with": "base", "weight": [0.0, 0.5]}, "early_stopping": {"share": 0.2, "evaluations": 4, "patience": 1},
    }  # fmt: skip
    config = {
        "model": str(base), "output_dir": str(tmp_path / "run"), "iterations": 2, "strategy": "vanilla", "warm_start": {},
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 12, "levels": [1, 2]}}], "prompt": {"template": "{question}"},
        "sample": {"k": 4, "max_new_tokens": 32}, "train": train, "evaluate": {"validation": 0.25, "perplexity_rows": 12}, "keep_models": "all",
    }  # fmt: skip
    lines = gsi.run(config, reporter=Reporter("lines")).metrics
    said = capsys.readouterr().err
    assert "first row of the first batch" in said
    assert "⟦" in said
    for n in (1, 2):
        folder = tmp_path / "run" / f"iter_{n}"
        rows, held = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("train", "validation"))
        assert not {r["query_id"] for r in rows} & {r["query_id"] for r in held}, "no query is on both sides"
        fresh = [r for r in (*rows, *held) if r["source"] is None and r["iteration"] == n - 1]
        again = [r for r in (*rows, *held) if r not in fresh]
        assert {r["source"] for r in again} <= {"warm_start", None}
        assert 0 < len(again) <= round(0.5 * len(fresh))
        assert lines[n]["train/interpolate/weight"] in (0.0, 0.5)
        assert lines[n][f"train/interpolate/accuracy/{lines[n]['train/interpolate/weight']:g}"] == lines[n]["eval/chain/mean_over_levels"]
        assert lines[n]["train/best_step"] <= lines[n]["train/steps"]
        assert not (folder / "work").exists()
        assert sorted(p.name for p in folder.iterdir() if "model" in p.name) == ["model"]
    # perplexity of the references, by hand
    model = AutoModelForCausalLM.from_pretrained(base)
    assert lines[1]["tail/perplexity/reference"] == lines[2]["tail/perplexity/reference"] > 1
    assert lines[1]["score/tokens"] > lines[2]["score/tokens"] > 0, "references are scored once"
    kept = pq.read_table(tmp_path / "run" / "iter_2" / "train.parquet").to_pylist()
    values = []
    for row in kept:
        ids = torch.tensor([row["input_ids"]])
        with torch.inference_mode():
            logp = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        values.append(-logp[torch.tensor(row["loss_mask"][1:]) == 1].mean().item())
    low, high = math.exp(min(values)), math.exp(max(values))
    assert low <= lines[2]["tail/perplexity/kept"] <= high
    if len(kept) <= 12:
        assert lines[2]["tail/perplexity/kept"] == pytest.approx(math.exp(sum(values) / len(values)), rel=1e-4)
    shares = {key: value for key, value in lines[2].items() if key.startswith("tail/perplexity/kept/from_")}
    assert sum(shares.values()) == pytest.approx(1)
    assert all(low * 0.84 <= float(key.partition("/from_")[2]) <= high for key in shares)
    flops = 2 * lines[2]["score/tokens"] + 2 * (lines[2]["sample/prompt_tokens"] + lines[2]["sample/tokens"]) + 6 * lines[2]["train/tokens"]
    assert lines[2]["cost/flops"] == pytest.approx(flops * model.num_parameters())


def test_lora_is_trained_merged_and_sampled_from(tmp_path):
    """The round trip: adapter, merge, plain folder, the engine that samples from it."""
    from gsi.engines.transformers import TransformersEngine
    from gsi.types import Query, Request, Sampling, Text

    model = models.build(tmp_path / "model", std=0.1)
    text, tokenizer = "ab: the answer is 7", models.tokenizer()
    ids = [*tokenizer(text)["input_ids"], 0]
    table = [
        {"input_ids": ids, "loss_mask": [0] * 3 + [1] * (len(ids) - 3), "weight": 1.0, "query_id": "q", "attempt": i} for i in range(32)
    ]
    for method in ("lora", "full"):
        made, _ = trained(tmp_path / method, model, table, method=method, epochs=30, learning_rate=2e-2 if method == "lora" else 5e-3)
        out = tmp_path / method / "out"
        assert not list(out.glob("adapter*"))
        assert made["loss"] < 3
        engine = TransformersEngine(str(out), AutoTokenizer.from_pretrained(out))
        drawn = []

        class One:
            def take(self, n, timeout=0.0):
                if self.left:
                    self.left = False
                    prompt = Text("ab:", tuple(ids[:3]))
                    return [Request(Query("q", "t", "", ""), 0, 0, prompt, Text("", ()), Sampling(0.0, 1.0, 40), 1)]
                return None

            left = True

            def put(self, request, completion):
                drawn.append(completion)  # noqa: B023

        engine.run(One())
        assert drawn[0].text == text[3:]
        assert drawn[0].ids == tuple(ids[3:])

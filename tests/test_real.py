"""The whole loop with a real tiny model: transformers sampling, TRL training in its own process, resume after SIGKILL."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import models
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import gsi
from gsi.cli import main
from gsi.lab.base import Recipe, build
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.train.launch import TrlTrainer
from gsi.types import GsiError, TrainJob

pytestmark = pytest.mark.slow
QUIET = Reporter("quiet")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A base that has seen a little of the chain task: enough to solve some easy questions."""
    path = tmp_path_factory.mktemp("base") / "model"
    build(path, 1, recipe=Recipe(examples=9000, level_rate=1.5))
    return path


def config(base: Path, output: Path, **changes):
    return {
        "model": str(base),
        "output_dir": str(output),
        "iterations": 1,
        "strategy": "state_reset",
        "accept": "steps",
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 8, "levels": [1, 2, 3, 7]}}],
        "prompt": {"template": "{question}"},
        "sample": {"k": 4, "wanted": 2, "max_extra": 4, "max_new_tokens": 64},
        "train": {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16},
        "evaluate": {"validation": 0.25},
    } | changes


def settings(**changes):
    from gsi.config.training import Train

    return Train(**{"epochs": 1, "learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 4} | changes).model_dump(
        mode="json", by_alias=True
    )


def job(folder: Path, rows: list[dict], model: Path, **changes) -> TrainJob:
    import pyarrow as pa

    data = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), data)
    return TrainJob(str(data), str(model), str(model), str(folder / "out"), str(folder / "work"), 1, settings(**changes))


def test_the_loop_learns_and_leaves_a_plain_transformers_model(base, tmp_path):
    result = gsi.run(config(base, tmp_path / "run"), reporter=QUIET)
    line = result.metrics[1]
    assert line["sample/accepted"] > 0
    assert line["train/steps"] > 0
    assert 0 < line["engine/prefill_tokens"] < line["sample/prompt_tokens"] + line["sample/given_tokens"], (
        "attempts at one question share a prefill"
    )
    assert line["engine/decode_tokens"] == line["sample/tokens"]
    assert 0 < line["engine/busy_share"] <= 1
    assert 0 < line["train/loss"] < 5
    final = tmp_path / "run" / "iter_1" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    assert tokenizer("d 3 e + 4 ?")["input_ids"] == AutoTokenizer.from_pretrained(base)("d 3 e + 4 ?")["input_ids"]
    before = AutoModelForCausalLM.from_pretrained(base)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        guided = db.execute("select given, response, prompt_ids, response_ids, given_tokens from rollouts where given != ''").fetchall()
        plain = db.execute("select prompt, prompt_ids from rollouts").fetchall()
    assert guided, "level 7 is out of reach, so its queries were guided"
    for given, response, _, response_ids, given_tokens in guided:
        assert response.startswith(given)
        assert tokenizer.decode(json.loads(response_ids)[:given_tokens]) == given.strip()
    for prompt, ids in plain:
        assert tokenizer.decode(json.loads(ids)) == prompt
    for row in pq.read_table(tmp_path / "run" / "iter_1" / "train.parquet").to_pylist():
        trained = [i for i, m in zip(row["input_ids"], row["loss_mask"], strict=True) if m]
        assert tokenizer.decode(trained, skip_special_tokens=True).split() == row["completion"].split()
        assert trained[-1] == tokenizer.eos_token_id


@pytest.mark.training
def test_killed_with_sigkill_and_resumed_nothing_is_lost_or_drawn_twice(base, tmp_path, capsys):
    """Kills in sampling and in training; prints the share of responses identical to an undisturbed run's."""
    calm = gsi.run(config(base, tmp_path / "calm"), reporter=QUIET)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config(base, tmp_path / "run", engine={"kind": "transformers", "max_rows": 4})))
    command = [sys.executable, "-m", "gsi", "run", str(path), "--log", "quiet"]
    ledger = tmp_path / "run" / "ledger.sqlite"

    def rows():
        if not ledger.exists():
            return {}
        with sqlite3.connect(ledger) as db:
            try:
                return {r[:2]: r[2:] for r in db.execute("select query_id, attempt, response, created_at from rollouts")}
            except sqlite3.OperationalError:  # the schema is not there yet
                return {}

    def start_and_kill(when):
        child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
        while child.poll() is None and not when():
            time.sleep(0.002)
        assert child.poll() is None, child.stderr.read().decode()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    start_and_kill(lambda: len(rows()) > 30)
    first = rows()
    start_and_kill(lambda: (tmp_path / "run" / "iter_1" / "work" / "train.log").exists())
    second = rows()
    assert first.items() <= second.items(), "a committed rollout was lost or drawn again"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert second == rows()
    with sqlite3.connect(tmp_path / "calm" / "ledger.sqlite") as db:
        undisturbed = {r[:2]: r[2] for r in db.execute("select query_id, attempt, response from rollouts")}
    same = sum(undisturbed.get(key) == value[0] for key, value in second.items()) / len(second)
    with capsys.disabled():
        print(f"\nidentical responses after two kills and another batch size: {same:.1%} of {len(second)}")
    assert same > 0.9
    assert calm.metrics[1]["sample/rollouts"] > 0
    assert not list((tmp_path / "run").rglob("*.part"))
    assert not (tmp_path / "run" / "iter_1" / "work").exists()


def test_a_nan_loss_stops_training_and_keeps_the_last_good_model(tmp_path):
    model = models.build(tmp_path / "model")
    rows = [{"input_ids": [5, 6, 7, 0], "loss_mask": [0, 1, 1, 1], "weight": 1.0}] * 16
    with pytest.raises(GsiError, match=r"(loss|gradient norm) became (nan|inf).* in the batch of these rows: row \d+; row \d+"):
        TrlTrainer().train(job(tmp_path, rows, model, learning_rate=1e30, warmup=0.0, clip=1e30, epochs=5))
    assert not (tmp_path / "out").exists()


def test_lora_trains_and_merges_into_a_plain_model(tmp_path):
    model = models.build(tmp_path / "model")
    rows = [{"input_ids": [5, 6, 7, 8, 9, 0], "loss_mask": [0, 0, 1, 1, 1, 1], "weight": 1.0}] * 64
    figures = TrlTrainer().train(job(tmp_path, rows, model, method="lora", epochs=6, learning_rate=1e-2))
    assert figures["tokens"] == 64 * 4 * 6
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("adapter*")] == []
    with torch.inference_mode():
        before = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)[7]
        after = merged(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)[7]
    assert after > 2 * before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"input_ids": [5, 6], "loss_mask": [0, 0], "weight": 1.0}], "nothing to train on"),
        ([{"input_ids": [5, 6], "loss_mask": [0, 1], "weight": -0.5}], "weights must be finite and at least 0"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(tmp_path, rows, message):
    with pytest.raises(GsiError, match=message):
        TrlTrainer().train(job(tmp_path, rows, models.build(tmp_path / "model")))


def test_gsm8k_with_an_untrained_model_says_what_is_wrong(tmp_path, data_dir, monkeypatch, capsys):
    """The demo's second part: real questions through the same `gsi run`."""
    monkeypatch.setenv("GSI_CACHE", str(tmp_path / "cache"))
    from gsi.lab.demo import gsm8k_config

    path = tmp_path / "gsm8k.yaml"
    path.write_text(yaml.safe_dump(gsm8k_config(str(data_dir / "train" / "gsm8k_cot.jsonl.gz"), tmp_path)))
    assert main(["run", str(path), "--log", "quiet"]) == 3
    said = capsys.readouterr().err
    assert "no rollout was accepted" in said
    assert "warm start" in said
    with sqlite3.connect(tmp_path / "gsm8k" / "ledger.sqlite") as db:
        assert db.execute("select count(*), sum(correct) from rollouts").fetchone() == (16 * 4, 0)
        assert db.execute("select count(*) from rollouts where given != ''").fetchone()[0] > 0


def test_profile_resumes_and_exports_pass_rates(base, tmp_path, capsys):
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"id": f"q{i}", "question": f"{i} + 1 ?", "answer": str(i + 1)}) + "\n" for i in range(5)))
    arguments = ["profile", str(base), str(data), "--output", str(tmp_path / "profile"), "sample.k=3", "sample.max_new_tokens=16"]
    assert main(arguments) == 0
    assert main(arguments) == 0, "the same command resumes"
    rows = [json.loads(line) for line in (tmp_path / "profile" / "profile.jsonl").read_text().splitlines()]
    assert [(r["attempts"], r["id"]) for r in rows] == [(3, f"q{i}") for i in range(5)]
    assert all(r["pass_rate"] == r["correct"] / 3 for r in rows)
    assert "pass rate" in capsys.readouterr().out


@pytest.mark.training
def test_the_quickstart_runs_with_its_own_questions_and_checker(base, tmp_path):
    """As a user runs it: a script of its own process, whose checker is loaded by the grading workers."""
    example = Path(__file__).parent.parent / "examples" / "quickstart.py"
    done = subprocess.run([sys.executable, str(example), str(base)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("runs/quickstart [")
    with sqlite3.connect(tmp_path / "runs" / "quickstart" / "ledger.sqlite") as db:
        correct, wrong = (db.execute("select count(*) from rollouts where status = ?", (s,)).fetchone()[0] for s in ("correct", "wrong"))
        rows = db.execute("select query_id, response, correct from rollouts").fetchall()
    assert correct > 0
    assert wrong > 0
    for query_id, response, said in rows:
        _, a, b = query_id.split("-")
        assert bool(said) == (response.split()[-1:] == [str(int(a) + int(b))])


@pytest.mark.parametrize(("strategy", "iterations"), [pytest.param("adaptive", 2, marks=pytest.mark.training), ("own_prefix", 1)])
def test_hints_that_adapt_on_a_real_model(base, tmp_path, check_folder, strategy, iterations):
    """Openings are real prefixes, to the token; a quarter of the attempts stays plain; the uncertain fifth of what was given is trained."""
    settings = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16, "on_given": "entropy"}
    result = gsi.run(config(base, tmp_path / "run", strategy=strategy, iterations=iterations, train=settings), reporter=QUIET)
    assert check_folder(result.path) == []
    ledger = Ledger(result.path / "ledger.sqlite", read_only=True)
    rows, references = list(ledger.rows()), dict(ledger.query("SELECT id, rationale FROM queries"))
    ledger.close()
    guided = [r for r in rows if r.guided]
    assert guided
    for r in guided:
        assert r.given
        own = [o.response for o in rows if o.query_id == r.query_id and (o.iteration, o.attempt) < (r.iteration, r.attempt)]
        assert any(text.startswith(r.given) for text in ([references[r.query_id]] if strategy == "adaptive" else own))
        assert len(r.response_ids) == r.given_tokens + r.generated_tokens
    for query in {(r.query_id, r.iteration) for r in guided}:
        mine = [r for r in rows if (r.query_id, r.iteration) == query]
        assert 4 * sum(not r.guided for r in mine) >= len(mine)
    rollouts = {(r.query_id, r.iteration, r.attempt): r for r in rows}
    trained = given = 0
    for row in pq.read_table(result.path / f"iter_{iterations}" / "train.parquet").to_pylist():
        r = rollouts[row["query_id"], row["iteration"], row["attempt"]]
        mask = row["loss_mask"][len(r.prompt_ids) :]
        assert all(mask[r.given_tokens :])
        trained, given = trained + sum(mask[: r.given_tokens]), given + r.given_tokens
    if given:
        assert 0.2 <= trained / given < 0.45  # a fifth of every row, at least one token
    assert result.metrics[-1]["train/steps"] > 0

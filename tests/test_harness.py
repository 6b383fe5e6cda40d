"""`gsi evaluate --harness`: the task files it writes; and, where lm-evaluation-harness is on the PATH (`make test-harness`), its results beside ours."""

import json
import shutil
from pathlib import Path

import pytest
import scripted
import yaml
from models import build

import gsi
from gsi.cli import main
from gsi.ledger import Ledger
from gsi.progress import Reporter

NUMBERS = [{"id": f"n{i}", "question": f"Say {i}.", "answer": str(i), "rationale": f"The answer is {i}"} for i in range(10, 22)]
LETTERS = [
    {
        "id": f"c{i}",
        "question": f"Pick {i}.",
        "answer": "ABCD"[i % 4],
        "options": list("wxyz"),
        "rationale": f"The answer is {'ABCD'[i % 4]}",
    }
    for i in range(4, 12)
]
HALVES = [
    {"id": f"h{i}", "question": f"Halve {i}.", "answer": f"\\frac{{{i}}}{{2}}", "rationale": f"The answer is \\boxed{{{i}/2}}"}
    for i in (3, 5, 7, 9)
]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def config(folder: Path, model: Path, sets: dict[str, list[dict]], **changes) -> dict:
    """A run on these questions, which is tested on them too, with every third gold changed: some are right, some wrong."""
    tasks, tests = [], []
    for name, rows in sets.items():
        bare = [{k: v for k, v in r.items() if k != "rationale"} for r in rows]  # one that contradicts its answer would be left out
        wrong = [
            {**r, "id": "t" + r["id"], "answer": rows[(i + 1) % len(rows)]["answer"] if i % 3 == 0 else r["answer"]}
            for i, r in enumerate(bare)
        ]
        tasks.append({"name": name, "path": write(folder / f"{name}.jsonl", rows)})
        tests.append({"name": name, "path": write(folder / f"{name}-test.jsonl", wrong)})
    base = {
        "model": str(model), "output_dir": str(folder / "run"), "iterations": 1, "tasks": tasks, "sample": {"k": 2, "wanted": 1, "max_new_tokens": 28},
        "evaluate": {"validation": 0, "tasks": tests, "overlap": "count", "perplexity_rows": 0},
    }  # fmt: skip
    return base | changes


@pytest.fixture(scope="module")
def random_run(tmp_path_factory) -> Path:
    """A run of a random model, trained on nothing: its responses are gibberish."""
    folder = tmp_path_factory.mktemp("random")
    data = {"svamp": NUMBERS[:4], "aqua": LETTERS[:4], "mine": NUMBERS[4:8]}
    settings = config(
        folder, build(folder / "model"), data,
        curate={"references": "all"}, train={"kind": "scripted", "function": f"{scripted.HERE}:copy_model"}, sample={"k": 1, "max_new_tokens": 6, "stop": ["Q"]},
    )  # fmt: skip
    for part in (settings["tasks"], settings["evaluate"]["tasks"]):
        part[2]["check"] = f"{scripted.HERE}:anything"
    return gsi.run(settings, reporter=Reporter("quiet")).path


def test_the_task_files_hold_the_prompts_that_the_run_asked(random_run, capsys):
    assert main(["evaluate", str(random_run), "--iteration", "1", "--harness", "--print"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"lm_eval --model hf --model_args pretrained={random_run / 'iter_1' / 'model'},dtype=float32,add_bos_token=False,max_length=128"
    )
    assert "--tasks gsi_aqua,gsi_svamp" in out
    assert "mine: left out, a function of your own checks it" in out
    folder = random_run / "harness" / "iter_1"
    spec = yaml.load((folder / "gsi_svamp.yaml").read_text(), yaml.BaseLoader)
    assert spec["generation_kwargs"] == {"until": ["</s>", "Q"], "max_gen_toks": "6", "do_sample": "false"}
    ledger = Ledger(random_run / "ledger.sqlite", read_only=True)
    asked = {r.query_id: r.prompt for r in ledger.rows(1, "test") if r.task == "svamp"}
    ledger.close()
    rows = [json.loads(line) for line in (folder / "gsi_svamp.jsonl").read_text().splitlines()]
    assert {r["id"]: r["prompt"] for r in rows} == asked
    assert [r["answer"] for r in rows] == ["11", "11", "12", "10"], "the test set's own answers, the changed ones too"


def test_what_the_harness_cannot_do_is_said(random_run, tmp_path, monkeypatch, capsys):
    command = ["evaluate", str(random_run), "--iteration"]
    assert main([*command, "7", "--harness", "--print"]) == 2
    assert "no model of iteration 7" in capsys.readouterr().err
    assert main([*command, "1", "--print"]) == 2
    assert "only with --harness" in capsys.readouterr().err
    assert main([*command, "1", "--harness", "--print", "--harness-tasks", "gsm8k,svamp"]) == 0
    assert "--tasks gsm8k,svamp --device" in capsys.readouterr().out
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*command, "1", "--harness"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("lm_eval --model hf"), "the command is printed all the same"
    assert "lm_eval is not on the PATH; pip install" in said.err
    (tmp_path / "lm_eval").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "lm_eval").chmod(0o755)
    assert main([*command, "1", "--harness"]) == 2
    assert "lm_eval ended with 3" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("lm_eval") is None, reason="lm_eval is not on the PATH (make test-harness)")
def test_our_accuracy_and_the_harnesss_are_the_same(tmp_path, capsys):
    """A tiny model that has learned its questions by heart; numbers, choices and fractions; every third gold is changed."""
    model = build(tmp_path / "model", context=256)
    settings = config(
        tmp_path, model, {"svamp": NUMBERS, "aqua": LETTERS, "math": HALVES},
        warm_start={"epochs": 120, "learning_rate": 0.005}, train={"from": "last", "batch_size": 8, "learning_rate": 0.0001},
    )  # fmt: skip
    run = gsi.run(settings, reporter=Reporter("quiet")).path
    assert main(["evaluate", str(run), "--iteration", "1", "--harness"]) == 0
    assert "same verdict" in capsys.readouterr().out
    found = json.loads((run / "harness" / "iter_1" / "harness.json").read_text())
    ours = json.loads((run / "iter_1" / "eval.json").read_text())["test"]
    for task in ("svamp", "aqua", "math"):
        result = found[f"gsi_{task}"]
        print(task, result)
        assert result["ours"] == ours[task]["pass@1"]
        assert result["same_text"] == result["n"] == ours[task]["n"], "greedy decoding is the same, token for token"
        assert result["same_verdict"] == result["n"]
        assert result["ours"] == result["harness"]
    assert 0 < sum(r["ours"] for r in found.values()) < 3
    assert (run / "harness" / "iter_1" / "differences.jsonl").read_text() == ""

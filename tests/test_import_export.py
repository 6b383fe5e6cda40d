"""Samples of others in, training data for others out: through the command, read back by TRL's own utilities."""

import json
import random
import runpy
import shutil
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import scripted
from test_ecosystem_data import turns, write

import gsi
from gsi import tasks
from gsi.cli import main
from gsi.config import load_config
from gsi.progress import Reporter
from gsi.runfolder.opening import open_folder
from gsi.types import Request

QUIET = Reporter("quiet")


@pytest.fixture
def check_folder():
    path = scripted.HERE.parent.parent.parent / "shared" / "check_run_folder.py"
    if not path.exists():
        pytest.skip(f"no {path.name} beside the project")
    return runpy.run_path(str(path))["check"]


def paper(item: str, question: str, answer: str, *responses: str) -> dict:
    """An item as the paper's released code writes it."""
    return {
        "item_id": item, "question": question, "answer_cot": f"It is known.\nThe answer is {answer}", "answer_value": answer,
        "pred": list(responses), "pred_value": [], "correct_pred": [r for r in responses if answer in r],
    }  # fmt: skip


PAPER = [
    paper("gsm8k_0", "2+2?", "4", "2+2 = 4\nThe answer is 4", "The answer is 5", "no idea", "The answer is 4.0"),
    paper("gsm8k_1", "3+3?", "6", *["The answer is 7"] * 4),
    paper("math_0", "Half of one?", "\\frac{1}{2}", "\\boxed{0.5}", "\\boxed{2}"),
    paper("aqua_rat_3", "Which? Answer Choices: (A) 12 (B) 15", "B", "The answer is (B)", "The answer is A", "The answer is 15"),
    paper("gsm8k_2", "A bad gold?", "", "The answer is 1"),
]


def rollouts(run: Path) -> list[dict]:
    with sqlite3.connect(run / "ledger.sqlite") as db:
        db.row_factory = sqlite3.Row
        return [dict(r) for r in db.execute("SELECT * FROM rollouts ORDER BY query_id, attempt")]


def test_the_papers_results_become_a_run(tmp_path, capsys, check_folder):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([*PAPER, PAPER[0]], indent=4))  # a retry has appended the first item again
    run = tmp_path / "run"
    assert main(["import", str(path), str(run)]) == 0
    said = capsys.readouterr().out
    assert "13 samples of 4 questions graded" in said
    assert "5 right" in said
    assert "1 rows left out" in said
    assert "1 items that stood there twice" in said
    rows = rollouts(run)
    assert {(r["query_id"], r["task"]) for r in rows} == {
        ("gsm8k_0", "gsm8k"),
        ("gsm8k_1", "gsm8k"),
        ("math_0", "math"),
        ("aqua_rat_3", "aqua"),
    }
    assert [r["correct"] for r in rows if r["query_id"] == "gsm8k_0"] == [1, 0, 0, 1], "4.0 is 4, which the paper's string match missed"
    assert [r["correct"] for r in rows if r["query_id"] == "math_0"] == [1, 0]
    assert check_folder(run) == []
    for command in (["report", str(run)], ["compare", str(run)], ["status", str(run)]):
        assert main(command) == 0
    assert (run / "report.html").exists()
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert (line["sample/rollouts"], line["sample/correct"]) == (13, 5)
    assert json.loads((run / "left_out.jsonl").read_text())["id"] == "gsm8k_2"
    capsys.readouterr()
    assert main(["import", str(path), str(run)]) == 2
    assert "exists" in capsys.readouterr().err


def test_programs_of_the_paper_are_run(tmp_path, capsys):
    if shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap here")
    ask = "What is 2+2? Let's write a Python program to solve it."
    (tmp_path / "r.json").write_text(json.dumps([paper("gsm8k_0", ask, "4", "print(2 + 2)", "print(5)", "The answer is 4")]))
    assert main(["import", str(tmp_path / "r.json"), str(tmp_path / "run")]) == 0
    rows = rollouts(tmp_path / "run")
    assert [r["correct"] for r in rows] == [1, 0, 0]
    assert "Let's" not in rows[0]["prompt"]
    assert load_config(tmp_path / "run" / "config.yaml").tasks[0].programs is True


SETS = {  # files of others -> the attempts of their questions
    "one row per sample": [{"id": f"s{i}", "question": f"{q}+1?", "answer": q + 1, "response": f"The answer is {a}"} for i, (q, a) in enumerate([(1, 2), (2, 9), (1, 3)])],
    "TRL prompt and completion": [{"prompt": f"{q}+1?", "completion": f"The answer is {a}", "solution": f"${q + 1}$"} for q, a in [(1, 2), (2, 9), (1, 3)]],
    "TRL conversational": [
        {"prompt": turns(f"{q}+1?"), "completion": turns(f"The answer is {a}", roles=("assistant",)), "answer": str(q + 1)} for q, a in [(1, 2), (2, 9), (1, 3)]
    ],
    "messages": [{"messages": turns(f"{q}+1?", f"The answer is {a}"), "answer": str(q + 1)} for q, a in [(1, 2), (2, 9), (1, 3)]],
    "lists": [{"problem": "1+1?", "gold": "2", "generations": ["The answer is 2", "The answer is 3"]}, {"problem": "2+1?", "gold": "3", "generations": ["The answer is 9"]}],
}  # fmt: skip


@pytest.mark.parametrize("case", SETS)
def test_samples_of_others_are_graded_by_question(tmp_path, case, check_folder):
    run = tmp_path / "run"
    assert main(["import", write(tmp_path / "d.jsonl", *SETS[case]), str(run), "--task", "gsm8k"]) == 0
    found = defaultdict(list)
    for r in rollouts(run):
        found[r["prompt"]].append((r["attempt"], r["correct"]))
    assert sorted(found.values()) == [[(0, 0)], [(0, 1), (1, 0)]]
    assert check_folder(run) == []


def test_answers_may_come_from_another_file_and_attempts_be_guided(tmp_path, capsys):
    samples = write(
        tmp_path / "d.jsonl",
        *({"prompt": "1+1?", "completion": f"The answer is {a}"} for a in (3, 4, 2)),
        {"prompt": "Other?", "completion": "1"},
    )
    assert main(["import", samples, str(tmp_path / "none")]) == 2
    assert "no answer to grade by" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    golds = write(tmp_path / "q.jsonl", {"id": "q1", "question": "1+1?", "answer": "2"})
    run = tmp_path / "run"
    options = ["--questions", golds, "--task", "gsm8k", "--strategy", "answer_driven", "--plain", "2"]
    assert main(["import", samples, str(run), *options]) == 0
    assert [(r["query_id"], r["guidance"], r["correct"]) for r in rollouts(run)] == [
        ("q1", None, 0),
        ("q1", None, 0),
        ("q1", "answer_driven", 1),
    ]
    assert main(["import", samples, str(tmp_path / "x"), "--columns", "response=nothing", "--questions", golds]) == 2
    assert "--columns response=COLUMN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "answer"),
    [
        ("aqua", ["A)0", "B)1", "C)2"], "b"),
        ("auto", ["0", "1", "2"], "B"),
        ("auto", ["0", "1", "2"], "(B)"),
        ("auto", ["0", "1", "2"], "1"),
    ],
)
def test_choices_from_a_column_are_shown_as_the_run_that_goes_on_shows_them(tmp_path, task, options, answer):
    rows = [
        {"question": f"What is {i} less than {i + 1}?", "options": options, "answer": answer, "response": "The answer is B."}
        for i in (5, 6)
    ]
    run = tmp_path / "run"
    assert main(["import", write(tmp_path / "d.jsonl", *rows), str(run), "--task", task]) == 0
    assert {(r["prompt"].count("Answer Choices: (A) 0 (B) 1 (C) 2"), r["correct"]) for r in rollouts(run)} == {(1, 1)}
    config = load_config(run / "config.yaml")
    with open_folder(config, {f"0:{task}": tasks.load(config.tasks[0]).fingerprint}) as folder:  # what `gsi run` does with it first
        assert folder.done(1, "sample")


def left_out(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "left_out.jsonl").read_text().splitlines()]


def test_a_sample_with_another_answer_to_the_same_question_is_left_out(tmp_path, capsys):
    rows = [("1+1?", "2", 2), ("1+1?", "3", 3), ("1+1?", "2.0", 2), ("1+1 ?", "3", 3), ("1+1?", None, 5)]
    samples = write(tmp_path / "d.jsonl", *({"question": q, "answer": gold, "response": f"The answer is {a}"} for q, gold, a in rows))
    assert main(["import", samples, str(tmp_path / "run"), "--task", "gsm8k"]) == 0
    assert "1 rows left out" in capsys.readouterr().out
    (problem,) = left_out(tmp_path / "run")
    assert (problem["field"], problem["line"]) == ("answer", 2)
    assert problem["reason"] == "'3', but line 1 answers the same question with '2': one of the two is wrong"
    assert [(r["prompt"], r["correct"]) for r in rollouts(tmp_path / "run")] == [
        *[("Question: 1+1?\nAnswer:\n", right) for right in (1, 1, 0)], ("Question: 1+1 ?\nAnswer:\n", 1)
    ]  # fmt: skip


def test_an_item_that_a_retry_wrote_with_another_answer_is_no_repetition(tmp_path, capsys):
    items = [paper("gsm8k_0", "1+1?", gold, "The answer is 2", "The answer is 3") for gold in ("2", "3", "2")]
    (tmp_path / "r.json").write_text(json.dumps(items))
    assert main(["import", str(tmp_path / "r.json"), str(tmp_path / "run")]) == 0
    assert "1 items that stood there twice" in capsys.readouterr().out
    assert [p["reason"][:35] for p in left_out(tmp_path / "run")] == ["'3', but row 1 answers the same que"]
    assert [r["correct"] for r in rollouts(tmp_path / "run")] == [1, 0]


def test_questions_given_with_two_answers_grade_only_samples_that_name_one(tmp_path):
    golds = write(tmp_path / "q.jsonl", *({"id": f"q{a}", "question": "1+1?", "answer": a} for a in (2, 3)))
    rows = [{"id": i, "prompt": "1+1?", "completion": "The answer is 3"} for i in ("q2", "q3", "other")]
    assert main(["import", write(tmp_path / "d.jsonl", *rows), str(tmp_path / "run"), "--questions", golds, "--task", "gsm8k"]) == 0
    assert [(r["query_id"], r["correct"]) for r in rollouts(tmp_path / "run")] == [("q2", 0), ("q3", 1)]
    (problem,) = left_out(tmp_path / "run")
    assert (problem["line"], problem["field"]) == (3, "question")
    assert "answer it with '2' (q2) and with '3' (q3); give each sample its id" in problem["reason"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("level", 10**30),
        ("level", -1),
        ("rationale", 5),
        ("generated_tokens", "many"),
        ("generated_tokens", -1),
        ("model", 7),
        ("finish_reason", ["stop", "length"]),
    ],
)
def test_a_field_that_cannot_be_kept_leaves_no_folder(tmp_path, capsys, field, value):
    samples = write(tmp_path / "d.jsonl", {"question": "1+1?", "answer": 2, "response": "The answer is 2", field: value})
    assert main(["import", samples, str(tmp_path / "run"), "--task", "gsm8k"]) == 2
    assert f"d.jsonl:1: field `{field}`: expected" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_several_responses_have_a_count_and_a_reason_each(tmp_path):
    two = {"question": "1+1?", "answer": 2, "responses": ["The answer is 2", "The answer is"], "finish_reason": ["stop", "length"]}
    path = write(
        tmp_path / "d.jsonl",
        two | {"generated_tokens": [4.0, 3]},
        {"question": "2+1?", "answer": 3, "responses": ["3", "4"], "generated_tokens": 99},
    )
    assert main(["import", path, str(tmp_path / "run"), "--task", "gsm8k"]) == 0
    assert [(r["generated_tokens"], r["status"]) for r in rollouts(tmp_path / "run")][:2] == [(4, "correct"), (3, "truncated")]
    assert [r["generated_tokens"] for r in rollouts(tmp_path / "run")][2:] == [1, 1], "one number for two responses may be their sum"


def test_a_run_goes_on_from_imported_samples(tmp_path, check_folder):
    """With the model that drew them, `gsi run` curates and trains: nothing is sampled again."""
    from models import build

    model = build(tmp_path / "model", context=256)
    path = write(tmp_path / "d.jsonl", *SETS["one row per sample"])
    run = tmp_path / "run"
    assert main(["import", path, str(run), "--task", "gsm8k", "--model", str(model)]) == 0
    before = rollouts(run)
    assert before[0]["generated_tokens"] == len(before[0]["response"]), "counted by the model's tokenizer: one token per character"
    assert main(["curate", str(run), "--iteration", "1"]) == 0
    (row,) = pq.read_table(run / "iter_1" / "train.parquet").to_pylist()
    assert row["completion"] == "The answer is 2"
    assert sum(row["loss_mask"]) == len(row["completion"]) + 1, "the end token is learned"
    assert rollouts(run) == before
    assert check_folder(run) == []


def test_samples_of_a_lab_model_are_counted_by_its_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("GSI_CACHE", str(tmp_path / "cache"))
    run, samples = tmp_path / "run", write(tmp_path / "d.jsonl", *SETS["one row per sample"])
    assert main(["import", samples, str(run), "--task", "gsm8k", "--model", "lab:untrained"]) == 0
    (folder,) = (tmp_path / "cache" / "lab").glob("untrained-*/seed-1")
    assert {(r["model"], r["generated_tokens"]) for r in rollouts(run)} == {(str(folder), len("The answer is 2"))}, "one token per byte"
    assert load_config(run / "config.yaml").model == "lab:untrained"
    assert main(["curate", str(run), "--iteration", "1"]) == 0


def test_a_lab_model_that_is_none_is_refused_by_the_labs_names(tmp_path, capsys):
    samples = write(tmp_path / "d.jsonl", *SETS["one row per sample"])
    assert main(["import", samples, str(tmp_path / "run"), "--model", "lab:untrianed"]) == 2
    assert "'lab:untrianed' is no lab model; known: lab:TASK" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------- out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with right, wrong, doubled and guided attempts."""
    output = tmp_path_factory.mktemp("export") / "run"
    config = scripted.config(
        output, strategy="state_reset", iterations=1, sample={"k": 6, "wanted": 4}, curate={"cap": 3, "distinct": True}
    )
    return gsi.run(config, reporter=QUIET).path


def out(run: Path, *options: str, name: str = "rows.jsonl") -> list[dict]:
    path = run.parent / name
    assert main(["export", str(run), str(path), *options]) == 0
    return pq.read_table(path).to_pylist() if name.endswith("parquet") else [json.loads(line) for line in path.read_text().splitlines()]


def key(row: dict) -> tuple:
    return row["query_id"], row["iteration"], row["attempt"]


def test_filters_run_again_and_choose_what_curation_chose(run):
    trained = pq.read_table(run / "iter_1" / "train.parquet").to_pylist()
    assert [key(r) for r in out(run)] == [key(r) for r in trained]
    again = out(run, "--cap", "3", "--distinct", "--accept", "answer")
    assert [(key(r), r["prompt"], r["completion"]) for r in again] == [(key(r), r["prompt"], r["completion"]) for r in trained]
    exact = out(run, "--cap", "3", "--ids", name="rows.parquet")
    assert [(r["input_ids"], r["completion_mask"]) for r in exact] == [(r["input_ids"], r["loss_mask"]) for r in trained]
    assert [(r["input_ids"], r["completion_mask"]) for r in out(run, "--ids")] == [(r["input_ids"], r["loss_mask"]) for r in trained]
    every = out(run, "--cap", "0", "--no-distinct")
    assert len(every) == sum(r["correct"] for r in rollouts(run)) > len(trained)
    assert max(Counter(r["query_id"] for r in out(run, "--cap", "1")).values()) == 1
    assert {key(r) for r in out(run, "--cap", "2")} <= {key(r) for r in again}
    assert out(run, "--cap", "2", "--no-distinct", "--seed", "5") != out(run, "--cap", "2", "--no-distinct")


def test_rollouts_of_one_iteration_are_those_its_rows_were_chosen_from(run, tmp_path, capsys):
    assert out(run, "--to", "rollouts", "--iteration", "1") == out(run, "--to", "rollouts") != []
    assert main(["export", str(run), str(tmp_path / "none.jsonl"), "--to", "rollouts", "--iteration", "2"]) == 2
    assert "nothing was sampled for iteration 2" in capsys.readouterr().err


def reworded(request: Request, model: str) -> str:
    """The right steps in words of many kinds, and for one attempt in three other steps."""
    rng = random.Random(request.seed)
    right, so = request.query.answer, rng.choice(["So", "Then", "Thus", "Hence", "Therefore", "And so"])
    steps = f"{right} + 0 = {right}" if rng.random() < 2 / 3 else f"{right} * 1 = {right}"
    return f"{so} {steps}\nThe answer is {right if rng.random() < 0.7 else 777}"


def test_rows_of_equal_steps_are_left_out_where_the_run_leaves_them_out(tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"question": f"What is {n}?", "answer": str(n)}) + "\n" for n in range(2, 12)))
    config = scripted.config(
        tmp_path / "run", iterations=1, sample={"k": 12}, curate={"distinct": "steps"}, evaluate={"validation": 0},
        tasks=[{"name": "auto", "path": str(tmp_path / "train.jsonl")}], engine={"kind": "scripted", "function": f"{__file__}:reworded"},
    )  # fmt: skip
    run = gsi.run(config, reporter=QUIET).path
    trained = [key(r) for r in pq.read_table(run / "iter_1" / "train.parquet").to_pylist()]
    assert len(trained) <= 20, "two kinds of steps for each of ten questions"
    for filters in (["--accept", "answer"], ["--distinct"], ["--cap", "0"]):
        assert [key(r) for r in out(run, *filters)] == trained
    assert len(out(run, "--no-distinct")) > len(trained)
    kinds = Counter((r["query_id"], r["label"]) for r in out(run, "--to", "kto"))
    assert max(kinds.values()) == 2
    config["curate"]["distinct"] = False
    other = gsi.run(config | {"output_dir": str(tmp_path / "other")}, reporter=QUIET).path
    assert len(out(other, "--accept", "answer")) > len(out(other, "--distinct")) > len(trained), "by text where the run has no measure"


def test_rejected_rows_are_negatives_with_the_plain_prompt(run):
    known = {key(r): r for r in rollouts(run)}
    pairs = out(run, "--to", "dpo", "--cap", "0", "--no-distinct")
    assert pairs
    for row in pairs:
        good, bad = known[key(row)], known[row["query_id"], row["iteration"], row["rejected_attempt"]]
        assert (row["chosen"], row["rejected"]) == (good["completion"], bad["completion"])
        assert (good["correct"], bad["status"], bad["guidance"]) == (1, "wrong", None)
        assert row["prompt"] == known[row["query_id"], row["iteration"], 0]["prompt"]
    assert max(Counter((r["query_id"], r["rejected_attempt"]) for r in pairs).values()) == 1
    assert max(Counter(key(r) for r in pairs).values()) == 1
    rows = out(run, "--to", "kto", "--cap", "0", "--no-distinct")
    assert Counter(r["label"] for r in rows)[True] == sum(r["correct"] for r in known.values())
    assert Counter(r["label"] for r in rows)[False] == sum(r["status"] == "wrong" and r["guidance"] is None for r in known.values())
    assert max(Counter((r["query_id"], r["label"]) for r in out(run, "--to", "kto", "--cap", "1")).values()) == 1


def test_prompts_carry_the_rate_at_which_they_are_solved(run):
    rows = {r["query_id"]: r for r in out(run, "--to", "grpo")}
    plain = defaultdict(list)
    for r in rollouts(run):
        if r["guidance"] is None:
            plain[r["query_id"]].append(r["correct"])
    assert {q: r["pass_rate"] for q, r in rows.items()} == {q: sum(found) / len(found) for q, found in plain.items()}
    assert len({r["pass_rate"] for r in rows.values()}) > 2


def test_exports_that_cannot_be(run, tmp_path, capsys):
    for options, message in {
        ("--to", "dpo", "--negatives", "bad"): "--negatives: 'bad'",
        ("--to", "dpo", "--iteration", "7"): "nothing was sampled for iteration 7",
        ("--to", "dpo", "--negatives", "timeout"): "no question has both",
        ("--iteration", "7"): "no training rows of iteration 7",
    }.items():
        assert main(["export", str(run), str(tmp_path / "x.jsonl"), *options]) == 2
        assert message in capsys.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "x.jsonl")]) == 2
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["sft", "sft-ids", "dpo", "kto", "grpo"])
def test_trl_trains_on_what_is_exported(tmp_path, to):
    """One step of TRL's own trainer of each kind, on a file as exported, read by `datasets`."""
    import datasets
    from models import build
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    model = build(tmp_path / "model", context=512)
    samples = [{"question": f"{q}+1?", "answer": q + 1, "response": f"The answer is {q + a}"} for q in range(4) for a in (1, 2)]
    run = tmp_path / "run"
    assert main(["import", write(tmp_path / "d.jsonl", *samples), str(run), "--task", "gsm8k", "--model", str(model)]) == 0
    kind, _, ids = to.partition("-")
    assert main(["export", str(run), str(tmp_path / "rows.jsonl"), "--to", kind, *(["--ids"] if ids else [])]) == 0
    data = datasets.load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    made = AutoModelForCausalLM.from_pretrained(model)
    common = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "bf16": False,
    }
    if kind == "sft":
        trainer = SFTTrainer(model=made, args=SFTConfig(**common), train_dataset=data, processing_class=tokenizer)
        labels = next(iter(trainer.get_train_dataloader()))["labels"]
        assert (labels != -100).sum(1).tolist() == [len("The answer is 1") + 1] * 2
    elif kind == "dpo":
        trainer = DPOTrainer(model=made, args=DPOConfig(**common), train_dataset=data, processing_class=tokenizer)
    elif kind == "kto":
        trainer = KTOTrainer(model=made, args=KTOConfig(**common), train_dataset=data, processing_class=tokenizer)
    else:
        seen = []

        def reward(completions, solution, pass_rate, **_):
            seen.extend(zip(solution, pass_rate, strict=True))
            return [0.0] * len(completions)

        args = GRPOConfig(**common, num_generations=2, max_completion_length=4)
        trainer = GRPOTrainer(model=made, reward_funcs=reward, args=args, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    assert trainer.state.global_step == 1
    if kind == "grpo":
        assert set(seen) <= {(str(q + 1), 0.5) for q in range(4)}
        assert seen

"""Data without levels: the initial model's own draws say what is hard, once and for all."""

import json
import random
import re
import sqlite3
from pathlib import Path

import pytest
import scripted
import yaml

from gsi import load_config, run
from gsi.cli import main
from gsi.progress import Reporter
from gsi.redo import stage
from gsi.types import GsiError, Request

QUIET = Reporter("quiet")


def respond(request: Request, model: str) -> str:
    """Right with a probability that falls with the number in the question; every trained model is hopeless at what was easy and good at the rest."""
    difficulty = int(request.query.question.split()[1]) / 50
    if Path(model).is_dir():
        difficulty = 1 - difficulty
    right = random.Random(request.seed).random() > difficulty
    return f"The answer is {request.query.answer if right else -1}."


def config(tmp_path, draws=16, **changes):
    for name in ("train", "test"):
        rows = [{"id": f"{name}-{i}", "question": f"Question {i} of {name}", "answer": str(i)} for i in range(50)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "mine", "check": f"{__file__}:check"}
    return (
        scripted.config(
            tmp_path / "run",
            tasks=[task | {"path": str(tmp_path / "train.jsonl")}],
            strata={"draws": draws},
            engine={"kind": "scripted", "function": f"{__file__}:respond"},
            train={"kind": "scripted", "function": f"{scripted.HERE}:make_folder"},
            evaluate={"validation": 0, "tasks": [task | {"path": str(tmp_path / "test.jsonl")}]},
        )
        | changes
    )


def check(response: str, query) -> bool:
    return response.rstrip(".").endswith(f" {query.answer}") or response == query.answer


def levels(path, split="train"):
    with sqlite3.connect(path / "ledger.sqlite") as db:
        return dict(db.execute("select id, level from queries where split = ?", (split,)))


def test_five_strata_of_equal_size_that_no_later_model_changes(tmp_path, check_folder):
    result = run(config(tmp_path))
    found = levels(result.path)
    assert [sum(level == n for level in found.values()) for n in range(1, 6)] == [10] * 5
    by_level = {n: [int(i.split("-")[1]) for i, level in found.items() if level == n] for n in range(1, 6)}
    means = [sum(v) / len(v) for v in by_level.values()]
    assert means == sorted(means)
    assert means[4] - means[0] > 30
    assert set(levels(result.path, "test").values()) == {1, 2, 3, 4, 5}
    # the trained model finds the hard ones easy; they stay the hard ones
    first, second = result.metrics[1], result.metrics[2]
    assert first["tail/share/level_5"] < 0.1 < 0.3 < second["tail/share/level_5"]
    assert second["tail/hard_share"] == second["tail/share/level_5"]
    assert check_folder(result.path) == []
    with sqlite3.connect(result.path / "ledger.sqlite") as db:
        assert db.execute("select count(*) from evaluations where split = 'strata'").fetchone() == (50 * 16,)
        assert {row[0] for row in db.execute("select distinct level from rollouts")} == {1, 2, 3, 4, 5}


def test_a_second_call_draws_nothing_and_keeps_the_strata(tmp_path):
    before = levels(run(config(tmp_path)).path)
    result = run(config(tmp_path, iterations=3))
    assert levels(result.path) == before
    with sqlite3.connect(result.path / "ledger.sqlite") as db:
        assert db.execute("select count(*) from evaluations where split like 'strata%'").fetchone() == (100 * 16,)


def test_stages_that_are_done_again_alone_measure_the_strata_first(tmp_path):
    changes = config(tmp_path, draws=4, warm_start={}, keep_models="all")
    changes["evaluate"]["validation"] = 10
    rows = [{"id": f"r{i}", "question": f"Question {i} of train", "answer": str(i), "rationale": f"It is {i}."} for i in range(50)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = run(changes, reporter=QUIET).path
    for name, n in (("train", 0), ("evaluate", 0), ("sample", 1), ("curate", 1), ("train", 1), ("evaluate", 1)):
        stage(load_config(changes), name, n, QUIET)
    run(changes, reporter=QUIET)
    with sqlite3.connect(path / "ledger.sqlite") as db:
        own = "SELECT level FROM rollouts UNION ALL SELECT level FROM evaluations WHERE split NOT LIKE 'strata%'"
        assert {level for (level,) in db.execute(own)} == {1, 2, 3, 4, 5}
        assert db.execute("SELECT count(*) FROM evaluations WHERE split LIKE 'strata%'").fetchone() == (100 * 4,)
    for n in range(3):
        assert json.loads((path / f"iter_{n}" / "eval.json").read_text())["validation"]["mine"]["mean_over_levels"] is not None


def test_a_stage_that_cannot_be_done_measures_nothing(tmp_path):
    changes = config(tmp_path, draws=4)
    for name, n in (("evaluate", 0), ("sample", 1), ("train", 1)):
        with pytest.raises(GsiError):
            stage(load_config(changes), name, n, QUIET)
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        assert db.execute("SELECT count(*) FROM evaluations").fetchone() == (0,)


@pytest.mark.parametrize("iterations", [1, 4])
def test_a_plan_counts_what_a_run_draws_beside_its_samples(tmp_path, capsys, iterations):
    """Strata and the test sets after every iteration, to the response."""
    changes = config(tmp_path, draws=4, iterations=iterations)
    changes["evaluate"] |= {"trajectory": True, "validation": 10, "pass_at_k": [1, 3]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changes))
    assert main(["run", str(tmp_path / "config.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    path = run(changes, reporter=QUIET).path
    with sqlite3.connect(path / "ledger.sqlite") as db:
        strata = db.execute("SELECT count(*) FROM evaluations WHERE split LIKE 'strata%'").fetchone()[0]
        every = db.execute("SELECT count(*) FROM evaluations").fetchone()[0]
    assert re.search(rf"strata: responses \(once\) +│ +│ {strata:,} ", out)
    half = 1024 // 2  # tokens of a response, where nothing is known
    assert re.search(rf"evaluate: tokens, estimated, with strata +│ +│ {half * every:,} ", out)


def test_without_draws_there_are_no_strata(tmp_path):
    result = run(config(tmp_path, draws=0))
    assert set(levels(result.path).values()) == {None}
    assert "tail/hard_share" not in result.metrics[1]


@pytest.mark.parametrize("draws", [4])
def test_a_task_with_levels_keeps_them(tmp_path, draws):
    result = run(scripted.config(tmp_path / "run", strata={"draws": draws}))
    assert set(levels(result.path).values()) == set(range(1, 11))
    with sqlite3.connect(result.path / "ledger.sqlite") as db:
        assert db.execute("select count(*) from evaluations where split like 'strata%'").fetchone() == (0,)


def test_lost_draws_of_a_warm_start_that_is_not_kept_are_drawn_again(tmp_path):
    made = config(tmp_path, draws=4, keep_models="last", warm_start={"tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 1}}]})
    run(made)
    before = levels(tmp_path / "run")
    assert not (tmp_path / "run" / "iter_0" / "model").exists()
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        db.execute("delete from evaluations where split = 'strata' and query_id like '%1'")
    db.close()
    with pytest.raises(GsiError, match=r"strata: \d+ of 400 rows are lost\n.*gsi doctor"):
        run(made)
    assert main(["doctor", str(tmp_path / "run")]) == 0
    run(made)
    assert levels(tmp_path / "run") == before
    assert main(["doctor", str(tmp_path / "run"), "--check"]) == 0

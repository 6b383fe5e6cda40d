"""What a fork keeps and does again, and what a stage command gives up: afterwards a run is what a fresh one of its config would be."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import scripted
import test_strata
from fake_server import FakeServer
from test_loop import QUIET, dump, run

from gsi.cli import main
from gsi.config import load_config
from gsi.engines.scripted import ScriptedEngine
from gsi.redo import stage
from gsi.types import GsiError, Request

TESTS = [{"name": "chain", "args": {"seed": 9, "per_level": 3}}]


def lucky(request: Request, model: str) -> str:
    """Like `respond`, and the initial model is greedily right on all answers, never on the steps of every second question."""
    rest = scripted.respond(request, model)
    if Path(model).name.startswith("model") or request.sampling.temperature:
        return rest
    return scripted.lucky(request, model)


def told(request: Request, model: str) -> str:
    """Like `respond`; as its own teacher it says on how many rows it was trained."""
    if request.guidance != "ask":
        return scripted.respond(request, model)
    path = Path(model) / "skill.json"
    return f"made after {json.loads(path.read_text())['rows'] if path.exists() else 'no'} rows"


def told_other(request: Request, model: str) -> str:
    """Like `told`, in other words."""
    return told(request, model).replace("made after", "trained on")


def evaluations(folder):
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        return db.execute(
            "select split, query_id, iteration, attempt, response, correct, steps_ok from evaluations order by 1, 2, 3, 4"
        ).fetchall()


def figures(result):
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in result.metrics]


def evals(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("iter_*/eval.json"))}


def assert_same(forked, fresh):
    """Of two results: attempts, evaluations and figures."""
    assert dump(forked.path) == dump(fresh.path)
    assert evaluations(forked.path) == evaluations(fresh.path)
    assert evals(forked.path) == evals(fresh.path)
    assert figures(forked) == figures(fresh)


@pytest.mark.parametrize(
    "change",
    [
        {"accept": "steps"},
        {"sample": {"k": 2, "wanted": 1}},
        {"sample": {"k": 4, "wanted": 2, "max_new_tokens": 7}},
        {"strategy": "brute_force"},
        {"curate": {"cap": 1}},
        {"train": {"kind": "scripted", "function": f"{scripted.HERE}:make_folder"}},
        {"evaluate": {"validation": 0.3, "tasks": TESTS, "pass_at_k": [1, 2]}},
        {"evaluate": {"validation": 0.3, "tasks": TESTS, "trajectory": True}},
        {"evaluate": {"validation": 0.3, "tasks": [{"name": "chain", "args": {"seed": 8, "per_level": 2}}]}},
        {"evaluate": {"validation": 0.3}},
        {"accept": "steps", "evaluate": {"validation": 0.3, "tasks": TESTS, "trajectory": True}},
    ],
    ids=lambda change: "+".join(change),
)
def test_a_fork_is_what_a_fresh_run_of_its_config_would_be(tmp_path, change, check_folder):
    base = {
        "keep_models": "all",
        "engine": {"kind": "scripted", "function": f"{__file__}:lucky"},
        "evaluate": {"validation": 0.3, "tasks": TESTS},
        "sample": {"k": 4, "wanted": 2},
    }
    run(scripted.config(tmp_path / "run", **base))
    before = evaluations(tmp_path / "run"), evals(tmp_path / "run")
    forked = run(scripted.config(tmp_path / "run", **base | change), fork="forked")
    fresh = run(scripted.config(tmp_path / "fresh", **base | change))
    assert_same(forked, fresh)
    tested = [json.loads((path / "run.json").read_text())["stages"].get("test") for path in (forked.path, fresh.path)]
    assert tested[0] == tested[1]
    assert (evaluations(tmp_path / "run"), evals(tmp_path / "run")) == before, "the source is untouched"
    assert check_folder(forked.path) == []
    assert figures(run(scripted.config(forked.path, **base | change))) == figures(fresh), "and it resumes"


def test_a_fork_with_fewer_iterations_is_one_of_fewer_iterations(tmp_path, check_folder):
    base = {"keep_models": "all", "iterations": 3, "evaluate": {"validation": 0.3, "tasks": TESTS}}
    run(scripted.config(tmp_path / "run", **base))
    forked = run(scripted.config(tmp_path / "run", **base | {"iterations": 1}), fork="short")
    fresh = run(scripted.config(tmp_path / "fresh", **base | {"iterations": 1}))
    assert (dump(forked.path), evaluations(forked.path), evals(forked.path)) == (
        dump(fresh.path),
        evaluations(fresh.path),
        evals(fresh.path),
    )
    assert figures(forked) == figures(fresh)
    assert {path.name for path in forked.path.glob("iter_*")} == {"iter_0", "iter_1"}
    assert main(["push", str(forked.path), "--to", str(tmp_path / "up")]) == 0
    assert "iteration 1" in (tmp_path / "up" / "model" / "README.md").read_text()
    assert check_folder(forked.path) == []


def test_a_fork_that_keeps_nothing_names_what_changed(tmp_path):
    run(scripted.config(tmp_path / "run"))
    changes = {"seed": 5, "prompt": {"template": "{question}"}, "curate": {"cap": 1}}
    with pytest.raises(GsiError, match=r"nothing of the old run stays valid under other values of prompt.template, seed;"):
        run(scripted.config(tmp_path / "run", **changes), fork="forked")
    with pytest.raises(GsiError, match=r"under other values of .*data of task 0:chain;"):
        run(scripted.config(tmp_path / "run", tasks=[{"name": "chain", "args": {"seed": 2, "per_level": 4}}]), fork="forked")
    assert not (tmp_path / "forked").exists()


def test_a_fork_to_another_teacher_asks_it_and_one_to_other_rows_does_not(tmp_path):
    with FakeServer(lambda body, n: f"feedback at {body['temperature']}") as server:
        teacher = {"url": server.url, "model": "fake", "temperature": 0.5}
        config = scripted.config(tmp_path / "run", strategy="interactive", teacher=teacher, iterations=1)
        run(config)
        asked = len(server.bodies)
        forked = run(config | {"curate": {"cap": 1}}, fork="rows").path
        assert dump(forked, "teacher_calls") == dump(tmp_path / "run", "teacher_calls")
        assert len(server.bodies) <= asked + 1, "a probe at most"
        forked = run(config | {"teacher": teacher | {"temperature": 0.9}}, fork="warm").path
        assert {body["temperature"] for body in server.bodies[asked + 1 :]} == {0.9}
        without = run(config | {"strategy": "vanilla"}, fork="without").path
        later = run(config | {"output_dir": str(without), "teacher": teacher | {"temperature": 0.9}}, fork="later").path
    prompts = [row for row in dump(forked) if row[6] == "interactive"]
    assert prompts
    assert all("feedback at 0.9" in str(row) for row in prompts)
    with sqlite3.connect(forked / "ledger.sqlite") as db:
        kept = db.execute("select distinct reply from archived_calls").fetchall()
    assert kept == [("feedback at 0.5",)], "paid for, so kept"
    assert said(forked) == {"feedback at 0.9"}
    assert said(later) == {"feedback at 0.9"}, "nor do those serve that were given up before"


def said(run: Path) -> set[str]:
    with sqlite3.connect(run / "ledger.sqlite") as db:
        return {reply for (reply,) in db.execute("select reply from teacher_calls")}


def asked_for(run: Path) -> tuple[set, set]:
    """(query, iteration, attempt) of the teacher's calls, and of the guided attempts."""
    with sqlite3.connect(run / "ledger.sqlite") as db:
        called = set(db.execute("select query_id, iteration, attempt from teacher_calls"))
        return called, set(db.execute("select query_id, iteration, attempt from rollouts where guidance is not null"))


@pytest.mark.parametrize(
    "change", [{"strategy": "vanilla"}, {"sample": {"k": 8, "wanted": 2}}, {"curate": {"cap": 1}}], ids=lambda c: next(iter(c))
)
def test_calls_of_a_teacher_count_for_rows_that_are_there_and_none_is_paid_for_twice(tmp_path, change):
    with FakeServer(lambda body, n: "feedback") as server:
        teacher = {"url": server.url, "model": "fake", "parameters": 1000}
        config = scripted.config(tmp_path / "run", strategy="interactive", teacher=teacher)
        first = run(config)
        forked, fresh = run(config | change, fork="forked"), run(config | change | {"output_dir": str(tmp_path / "fresh")})
        assert figures(forked) == figures(fresh)
        assert dump(forked.path, "teacher_calls") == dump(fresh.path, "teacher_calls")
        called, guided = asked_for(forked.path)
        assert called == guided
        assert bool(called) == ("strategy" not in change)
        back = run(config | {"output_dir": str(forked.path)}, fork="back")
        assert figures(back) == figures(first)
        asked = [json.dumps(body["messages"]) for body in server.bodies]
        run(config | change | {"output_dir": str(back.path)}, fork="and_again")
        run(config | {"output_dir": str(tmp_path / "and_again")}, fork="and_back")
        new = [json.dumps(body["messages"]) for body in server.bodies[len(asked) :]]
        assert set(new) <= {json.dumps([{"role": "user", "content": "Reply with OK."}])}, "probes; every reply is there"


def test_calls_go_with_a_redone_stage_and_come_back_with_it(tmp_path):
    with FakeServer(lambda body, n: "feedback") as server:
        config = scripted.config(tmp_path / "run", strategy="interactive", teacher={"url": server.url, "model": "fake"})
        first, calls = run(config), dump(tmp_path / "run", "teacher_calls")
        asked = len(server.bodies)
        stage(load_config(config), "curate", 1, QUIET)
        called, guided = asked_for(tmp_path / "run")
        assert called == guided
        assert {iteration for _, iteration, _ in called} == {0}
        assert figures(run(config)) == figures(first)
        assert dump(tmp_path / "run", "teacher_calls") == calls
        assert len(server.bodies) <= asked + 2, "probes at most"


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "vanilla"},
        {"sample": {"k": 6, "wanted": 2, "max_extra": 4}},
        {"engine": {"kind": "scripted", "function": f"{__file__}:told_other"}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_a_model_told_itself_costs_what_it_costs_a_fresh_run(tmp_path, change, monkeypatch):
    monkeypatch.setattr(ScriptedEngine, "parameters", 1000, raising=False)
    config = scripted.config(
        tmp_path / "run",
        strategy="own_correction",
        teacher={"kind": "self"},
        engine={"kind": "scripted", "function": f"{__file__}:told"},
        sample={"k": 4, "wanted": 2, "max_extra": 4},
    )
    run(config)
    forked, fresh = run(config | change, fork="forked"), run(config | change | {"output_dir": str(tmp_path / "fresh")})
    assert figures(forked) == figures(fresh)
    assert dump(forked.path, "teacher_calls") == dump(fresh.path, "teacher_calls")


def test_a_checker_that_was_changed_is_refused_and_a_fork_grades_with_the_new_one(tmp_path):
    code, data = tmp_path / "mine.py", tmp_path / "mine.jsonl"
    code.write_text("def check(response, query):\n    return True\n")
    data.write_text("".join(json.dumps({"id": str(i), "question": f"{i} + {i}", "answer": str(2 * i)}) + "\n" for i in range(12)))
    config = scripted.config(
        tmp_path / "run",
        tasks=[{"name": "mine", "path": str(data), "check": f"{code}:check"}],
        engine={"kind": "scripted", "function": f"{scripted.HERE}:tell"},
        iterations=1,
    )
    run(config)
    code.write_text("def check(response, query):  # of the last word\n    return (True)\n")
    run(config | {"iterations": 2})  # nothing but a remark
    code.write_text("def check(response, query):\n    return response.split()[-1].strip('.') == query.answer\n")
    with pytest.raises(GsiError, match=r"task mine: its checker is not the one the run began with\n.*--fork NAME"):
        run(config | {"iterations": 3})
    forked = run(config | {"iterations": 2}, fork="forked")
    fresh = run(config | {"iterations": 2, "output_dir": str(tmp_path / "fresh")})
    assert (dump(forked.path), evaluations(forked.path)) == (dump(fresh.path), evaluations(fresh.path))
    assert {row for (row,) in sqlite3.connect(forked.path / "ledger.sqlite").execute("select distinct correct from rollouts")} == {0, 1}


def test_a_change_inside_a_list_is_named_by_its_key_and_a_fork_offered_where_it_keeps_something(tmp_path):
    config = scripted.config(tmp_path / "run", evaluate={"validation": 0.3, "tasks": TESTS})
    run(config)
    other = [{"name": "chain", "args": {"seed": 9, "per_level": 2}}]
    with pytest.raises(GsiError, match=r"(?s)  evaluate.tasks.0.args.per_level: 3 -> 2\n.*with --fork NAME to start"):
        run(config | {"evaluate": {"validation": 0.3, "tasks": other}})
    with pytest.raises(GsiError, match=r"(?s)  tasks.0.args.seed: 1 -> 2\n.*Use the old values to resume, or another output_dir$"):
        run(config | {"tasks": [{"name": "chain", "args": {"seed": 2, "per_level": 4}}]})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (
            {"strategy": "vanilla", "guidance": {"kind": "state_reset"}},
            "guidance.kind: `state_reset` is never asked under allocation `fixed`",
        ),
        ({"strategy": "state_reset", "allocation": {"kind": "dart_uniform"}}, "guidance.kind"),
        ({"strategy": "adaptive", "sample": {"max_extra": 0}}, "sample.max_extra: with 0 no attempt is left"),
    ],
)
def test_guidance_that_no_attempt_would_ask_for_is_refused(tmp_path, changes, key):
    with pytest.raises(GsiError, match=key):
        load_config(scripted.config(tmp_path / "run", **changes))


def test_what_a_model_told_itself_goes_with_the_model(tmp_path):
    config = scripted.config(
        tmp_path / "run",
        strategy="vanilla",
        allocation={"kind": "quota"},
        guidance={"kind": "cue"},
        teacher={"kind": "self"},
        keep_models="all",
        engine={"kind": "scripted", "function": f"{__file__}:told"},
    )
    config["sample"] = {"k": 4, "wanted": 2, "max_extra": 2}
    run(config)
    forked = run(config | {"curate": {"cap": 1}}, fork="forked")
    fresh = run(config | {"curate": {"cap": 1}, "output_dir": str(tmp_path / "fresh")})
    rows = json.loads((forked.path / "iter_1" / "model" / "skill.json").read_text())["rows"]
    with sqlite3.connect(forked.path / "ledger.sqlite") as db:
        said = {reply for (reply,) in db.execute("select reply from teacher_calls where iteration = 1")}
    assert said == {f"made after {rows} rows"}
    assert dump(forked.path, "teacher_calls") == dump(fresh.path, "teacher_calls")
    assert figures(forked) == figures(fresh)


@pytest.mark.parametrize("how", ["evaluate", "fork", "fork, other draws"])
def test_strata_outlive_an_evaluation_and_are_measured_anew_for_other_draws(tmp_path, how):
    config = test_strata.config(tmp_path, draws=4, keep_models="all")
    run(config)
    before = test_strata.levels(tmp_path / "run")
    if how == "evaluate":
        stage(load_config(config), "evaluate", 0, QUIET)
        run(config)
        assert test_strata.levels(tmp_path / "run") == before
        return
    change = {"evaluate": config["evaluate"] | {"pass_at_k": [1, 2]}}
    if how != "fork":
        change = {"sample": {**config.get("sample", {}), "temperature": 0.9, "top_p": 0.9}}
    forked = run(config | change, fork="forked").path
    assert test_strata.levels(forked) == before  # the made-up model does not look at the temperature
    with sqlite3.connect(forked / "ledger.sqlite") as db:
        archived = db.execute("select count(*) from archived where split like 'strata%'").fetchone()[0]
        there = db.execute("select count(*) from evaluations where split like 'strata%'").fetchone()[0]
    assert (archived, there) == ((0, 400) if how == "fork" else (400, 400))


@pytest.mark.parametrize(
    ("name", "n", "changes"),
    [
        ("evaluate", 2, {}),
        ("train", 3, {"keep_models": "last", "train": {"from": "last", "kind": "scripted", "function": f"{scripted.HERE}:train"}}),
    ],
)
def test_a_stage_whose_model_is_not_kept_is_refused_before_anything_is_given_up(tmp_path, name, n, changes):
    config = scripted.config(tmp_path / "run", iterations=3, **changes)
    result = run(config)
    assert not (tmp_path / "run" / f"iter_{n if name == 'evaluate' else n - 1}" / "model").exists()
    before = evaluations(tmp_path / "run"), json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    with pytest.raises(GsiError, match=r"there is no iter_2 model; it was not trained yet, or not kept \(keep_models"):
        stage(load_config(config), name, n, QUIET)
    assert (evaluations(tmp_path / "run"), json.loads((tmp_path / "run" / "run.json").read_text())["stages"]) == before
    assert figures(run(config)) == figures(result)


def test_figures_of_models_that_are_gone_are_not_shown(tmp_path):
    config = scripted.config(tmp_path / "run", keep_models="all", evaluate={"validation": 0.3, "tasks": TESTS})
    result = run(config)
    stage(load_config(config), "curate", 1, QUIET)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [any(key.startswith("eval/") for key in line) for line in lines] == [True, False]
    assert main(["push", str(tmp_path / "run"), "--to", str(tmp_path / "up")]) == 2, "its models are those of the rows before"
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "rows.jsonl")]) == 0
    exported = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["iteration"] for row in exported} == {0}, "of iteration 1, whose rows were chosen again"
    assert figures(run(config)) == figures(result)


def test_a_model_that_was_pruned_keeps_its_evaluation_in_a_fork(tmp_path):
    config = scripted.config(tmp_path / "run", iterations=3, keep_models="last", evaluate={"validation": 0.3})
    run(config)
    forked = run(config | {"evaluate": {"validation": 0.3, "pass_at_k": [1, 2]}}, fork="forked").path
    found = evals(forked)
    assert ["pass@2" in found[f"iter_{n}"]["validation"]["chain"] for n in range(4)] == [True, False, False, True]
    shutil.rmtree(forked)


LAST = {"kind": "scripted", "function": f"{scripted.HERE}:train", "from": "last"}


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"strategy": "brute_force"}),
        ({}, {"sample": {"k": 4, "wanted": 2, "max_new_tokens": 7}}),
        ({"train": LAST}, {"curate": {"cap": 1}}),
        ({"train": LAST}, {"curate": {"cap": 1}, "evaluate": {"validation": 0.3, "tasks": TESTS, "pass_at_k": [1, 2]}}),
        ({}, {"iterations": 1}),
        ({"train": LAST}, {"iterations": 2}),
        ({"train": LAST}, {"iterations": 2, "curate": {"cap": 1}}),
    ],
    ids=["strategy", "draws", "from last", "from last, evaluated anew", "fewer", "fewer, from last", "fewer, other rows"],
)
def test_a_fork_trains_again_the_models_it_needs_that_are_not_kept(tmp_path, base, change, check_folder):
    base = {"warm_start": {"limit": 10}, "iterations": 3, "keep_models": "last", "evaluate": {"validation": 0.3, "tasks": TESTS}} | base
    run(scripted.config(tmp_path / "run", **base))
    assert {path.parent.name for path in (tmp_path / "run").glob("iter_*/model")} == {"iter_3"}
    forked = run(scripted.config(tmp_path / "run", **base | change), fork="forked")
    fresh = run(scripted.config(tmp_path / "fresh", **base | change))
    assert_same(forked, fresh)
    final = f"iter_{(base | change)['iterations']}"
    assert {path.parent.name for path in forked.path.glob("iter_*/model")} == {final}
    assert "test" in evals(forked.path)[final]
    assert check_folder(forked.path) == []


def test_a_fork_whose_model_cannot_be_made_again_is_refused_before_anything_is_copied(tmp_path):
    config = scripted.config(tmp_path / "run", iterations=3, keep_models="last")
    run(config)
    (tmp_path / "run" / "iter_1" / "train.parquet").unlink()
    with pytest.raises(GsiError, match=r"iter_1 model is not kept, and the rows to train it again are not there; choose .* \(0, 3\)"):
        run(config | {"iterations": 1}, fork="short")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

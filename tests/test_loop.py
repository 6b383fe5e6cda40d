"""The whole loop with a scripted engine and trainer, through the public entry points."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import scripted
import yaml
from fake_server import FakeServer

import gsi
from gsi.cli import main
from gsi.config import load_config
from gsi.lab import chain
from gsi.progress import Reporter
from gsi.queries import load_data
from gsi.redo import stage
from gsi.types import GsiError, NothingAccepted

QUIET = Reporter("quiet")
STRATEGIES = ["vanilla", "brute_force", "answer_driven", "rationale_driven", "state_reset"]


def run(config, **kwargs):
    return gsi.run(config, reporter=QUIET, **kwargs)


def dump(run: Path, table: str = "rollouts") -> list[tuple]:
    """The ledger's rows without the time stamps, in identity order."""
    with sqlite3.connect(run / "ledger.sqlite") as db:
        columns = [c[1] for c in db.execute(f"pragma table_info({table})") if c[1] != "created_at"]
        if not columns:  # killed before the tables were made
            return []
        return db.execute(f"select {', '.join(columns)} from {table} order by query_id, iteration, attempt").fetchall()


def train_rows(run: Path, n: int) -> list[dict]:
    return pq.read_table(run / f"iter_{n}" / "train.parquet").to_pylist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_runs_and_keeps_the_contract(tmp_path, strategy, check_folder):
    result = run(scripted.config(tmp_path / "run", strategy=strategy))
    assert check_folder(tmp_path / "run") == []
    assert [line["iteration"] for line in result.metrics] == [0, 1, 2]
    line = result.metrics[-1]
    assert line["sample/accepted"] > 0
    assert line["sample/waste"] == 0, "nothing is launched that one-by-one drawing would not have launched"
    assert sum(line[f"sample/level_{level}/tokens"] for level in range(1, 11)) == line["sample/tokens"]
    for what in ("rollouts", "accepted", "tokens", "prompt_tokens"):
        of_both = [value for key, value in line.items() if re.fullmatch(rf"sample/[a-z_]+/level_\d+/{what}", key)]
        assert sum(of_both) == line[f"sample/{what}"], "by kind of help and level, everything is counted once"
    assert (tmp_path / "run" / "iter_2" / "model" / "skill.json").exists()
    guided = {row[0] for row in sqlite3.connect(tmp_path / "run" / "ledger.sqlite").execute("select distinct guidance from rollouts")} - {
        None
    }
    assert bool(guided) == (strategy not in ("vanilla", "brute_force"))


def test_guidance_reaches_the_tail_and_vanilla_narrows(tmp_path):
    figures = {}
    for strategy in ("vanilla", "state_reset"):
        figures[strategy] = run(scripted.config(tmp_path / strategy, strategy=strategy)).metrics
    assert figures["state_reset"][1]["tail/hard_coverage"] > figures["vanilla"][1]["tail/hard_coverage"]
    assert figures["state_reset"][1]["tail/hard_share"] > figures["vanilla"][1]["tail/hard_share"]
    shares = [figures["vanilla"][1].get(f"tail/share/level_{level}", 0) for level in range(1, 11)]
    assert shares[0] > 0.1 > shares[-1], "the scripted model solves easy levels more often than hard ones"


def test_what_sampling_cost_is_said_by_kind_and_level(tmp_path, capsys):
    config = scripted.config(tmp_path / "run", strategy="state_reset", iterations=1)
    line = gsi.run(config, reporter=Reporter("lines")).metrics[1]
    said = next(x for x in capsys.readouterr().err.splitlines() if "tokens per accepted response" in x)

    def price(name):
        return f"{line[f'{name}/tokens'] / good:,.0f}" if (good := line[f"{name}/accepted"]) else "none accepted"

    levels = ", ".join(f"{level} {price(f'sample/level_{level}')}" for level in range(1, 11))
    kinds = f"plain {price('sample/plain')}, state_reset {price('sample/state_reset')}"
    assert said == f"iteration 1: tokens per accepted response: {price('sample')} ({kinds}); by level: {levels}"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_hint_reaches_a_training_prompt(tmp_path, strategy):
    run(scripted.config(tmp_path / "run", strategy=strategy))
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        questions = dict(db.execute("select query_id, prompt from rollouts where guidance is null"))
        hinted = {row[0] for row in db.execute("select prompt from rollouts where guidance is not null")} - set(questions.values())
    assert bool(hinted) == (strategy in ("answer_driven", "rationale_driven")), "these two change the prompt of the attempt"
    guided = 0
    for n in (1, 2):
        for row in train_rows(tmp_path / "run", n):
            assert row["prompt"] == questions[row["query_id"]]
            prompt_ids = list(row["prompt"].encode())
            assert row["input_ids"][: len(prompt_ids)] == prompt_ids
            assert bytes(row["input_ids"][len(prompt_ids) : -1]).decode() == row["completion"]
            guided += row["guidance"] is not None
    assert guided or strategy in ("vanilla", "brute_force")


def test_the_ledger_does_not_depend_on_completion_order_or_batch(tmp_path):
    run(scripted.config(tmp_path / "a", strategy="state_reset"))
    for name, engine in {"b": {"max_rows": 1}, "c": {"max_rows": 64, "shuffle": 7}, "d": {"max_rows": 5, "shuffle": 8}}.items():
        run(scripted.config(tmp_path / name, strategy="state_reset", engine=scripted.config(tmp_path)["engine"] | engine))
        assert dump(tmp_path / name) == dump(tmp_path / "a")
        assert train_rows(tmp_path / name, 2) == train_rows(tmp_path / "a", 2)


def test_running_again_changes_nothing(tmp_path):
    first = run(scripted.config(tmp_path / "run"))
    before = dump(tmp_path / "run"), (tmp_path / "run" / "metrics.jsonl").read_bytes()
    second = run(scripted.config(tmp_path / "run"))
    assert (dump(tmp_path / "run"), (tmp_path / "run" / "metrics.jsonl").read_bytes()) == before
    assert first.metrics == second.metrics


def test_more_iterations_continue_a_run(tmp_path):
    run(scripted.config(tmp_path / "a", iterations=1))
    run(scripted.config(tmp_path / "a", iterations=3))
    run(scripted.config(tmp_path / "b", iterations=3))
    assert dump(tmp_path / "a") == dump(tmp_path / "b")
    with pytest.raises(GsiError, match="cannot be taken back"):
        run(scripted.config(tmp_path / "a", iterations=2))


def test_one_engine_start_serves_evaluate_sample_and_guide(tmp_path):
    run(scripted.config(tmp_path / "run", strategy="answer_driven", iterations=2))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["engine_starts"] == 3  # iter_0, iter_1, iter_2


@pytest.mark.parametrize(
    ("changes", "named", "fork"),
    [
        ({"sample": {"k": 5, "wanted": 2}}, "sample.k: 4 -> 5", True),
        ({"strategy": "brute_force"}, "strategy: 'vanilla' -> 'brute_force'", True),
        ({"seed": 9}, "seed: 0 -> 9", False),
        ({"tasks": [{"name": "chain", "args": {"seed": 2, "per_level": 4}}]}, "tasks.0.args.seed: 1 -> 2", False),
    ],
)
def test_a_changed_config_is_refused_with_the_changed_fields(tmp_path, changes, named, fork):
    run(scripted.config(tmp_path / "run"))
    with pytest.raises(GsiError, match="another config") as e:
        run(scripted.config(tmp_path / "run", **changes))
    assert named in str(e.value)
    assert ("--fork" in str(e.value)) == fork, "where it would keep something"


def test_what_another_allocation_alone_reads_may_change(tmp_path):
    """As a default does between versions; a run that reads it is refused."""
    run(scripted.config(tmp_path / "plain"))
    run(scripted.config(tmp_path / "plain", allocation={"skip": 0.5}))
    run(scripted.config(tmp_path / "bayes", strategy="bayes"))
    with pytest.raises(GsiError, match=r"allocation.skip: 0.0 -> 0.5"):
        run(scripted.config(tmp_path / "bayes", strategy="bayes", allocation={"skip": 0.5}))
    with pytest.raises(GsiError, match=r"allocation.kind: 'fixed' -> 'bayes'\n  allocation.skip: 0.5 -> 0.7"):
        run(scripted.config(tmp_path / "plain", allocation={"kind": "bayes", "skip": 0.7}))


def test_changed_data_is_refused(tmp_path):
    rows = [{"id": f"q{i}", "question": f"{i} plus 1?", "answer": str(i + 1)} for i in range(4)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    check = f"{scripted.HERE.parent / 'own_check.py'}:check"
    engine = {"kind": "scripted", "function": f"{scripted.HERE.parent / 'own_check.py'}:respond"}
    config = scripted.config(
        tmp_path / "run", tasks=[{"name": "mine", "path": str(data), "check": check}], engine=engine, evaluate={"validation": 0}
    )
    run(config)
    data.write_text(data.read_text().replace("3 plus 1?", "3 plus one?"))
    with pytest.raises(GsiError, match="data of task"):
        run(config)


def test_fork_keeps_what_stays_valid(tmp_path):
    run(scripted.config(tmp_path / "run"))
    sampled = [r for r in dump(tmp_path / "run") if r[3] == 0]
    result = run(scripted.config(tmp_path / "run", curate={"cap": 1}), fork="capped")
    assert result.path == tmp_path / "capped"
    assert [r for r in dump(tmp_path / "capped") if r[3] == 0] == sampled, "the samples of iteration 1 are used again"
    assert len(train_rows(tmp_path / "capped", 1)) < len(train_rows(tmp_path / "run", 1))
    run(scripted.config(tmp_path / "fresh", curate={"cap": 1}))
    assert dump(tmp_path / "capped") == dump(tmp_path / "fresh")
    with pytest.raises(GsiError, match="exists"):
        run(scripted.config(tmp_path / "run", curate={"cap": 1}), fork="capped")


def test_stage_commands_redo_a_stage_and_make_later_ones_stale(tmp_path):
    config = load_config(scripted.config(tmp_path / "run"))
    run(config)
    before = dump(tmp_path / "run")
    stage(config, "curate", 1, QUIET)
    state = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert set(state) == {"iter_0/train", "iter_0/evaluate", "iter_1/sample", "iter_1/curate"}
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        assert db.execute("select count(*) from archived where source = 'rollouts'").fetchone()[0] == len(
            [r for r in before if r[3] == 1]
        ), "paid for, so kept"
    run(config)
    assert dump(tmp_path / "run") == before
    with pytest.raises(GsiError, match="no such stage"):
        stage(config, "sample", 9, QUIET)


def test_interactive_asks_a_real_server_and_keeps_every_exchange(tmp_path, check_folder, monkeypatch):
    """Over HTTP: the teacher sees question, wrong attempt and final answer, never the rationale; a resumed run pays for nothing again."""
    monkeypatch.setenv("TEACHER_KEY", "sk-canary-1234")
    with FakeServer(lambda body, n: "Look at the second step again.") as server:
        teacher = {"url": server.url, "model": "fake", "api_key_env": "TEACHER_KEY", "concurrency": 3}
        config = scripted.config(tmp_path / "run", strategy="interactive", teacher=teacher, iterations=1)
        run(config)
        asked = len(server.bodies)
        calls = dump(tmp_path / "run", "teacher_calls")
        guided = [r for r in dump(tmp_path / "run") if r[6] == "interactive"]
        assert guided
        assert len(calls) == len(guided) == asked - 1, "one exchange per guided attempt, and the probe at the start"
        line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
        assert (line["teacher/calls"], line["sample/interactive/rollouts"]) == (len(calls), len(guided))
        assert line["teacher/tokens"] > 0
        assert server.most_at_once <= 3
        rationales = [q.rationale for q in chain.queries(1, 4)]
        assert not any(re.search(re.escape(rationale) + r"(?!\d)", json.dumps(body)) for body in server.bodies for rationale in rationales)
        stage(load_config(config), "sample", 1, QUIET)
        with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
            db.execute("delete from rollouts where guidance = 'interactive'")
        state = json.loads((tmp_path / "run" / "run.json").read_text())
        state["stages"] = {k: v for k, v in state["stages"].items() if k.startswith("iter_0")}
        del state["checksum"]  # of the file before
        (tmp_path / "run" / "run.json").write_text(json.dumps(state))
        run(config | {"teacher": teacher | {"parameters": 1000}})
        assert dump(tmp_path / "run", "teacher_calls") == calls
        again = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
        assert again["cost/flops"] - line["cost/flops"] == 2 * 1000 * (line["teacher/prompt_tokens"] + line["teacher/tokens"])
        assert len(server.bodies) <= asked + 2, "two more probes at most; the stored replies serve again"
        assert sorted(r for r in dump(tmp_path / "run") if r[6] == "interactive") == sorted(guided)
    assert check_folder(tmp_path / "run") == []
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"sk-canary" not in path.read_bytes(), path
    with pytest.raises(GsiError, match="teacher"):
        run(scripted.config(tmp_path / "other", strategy="interactive", teacher=teacher | {"retries": 0, "timeout": 2}))
    assert not (tmp_path / "other").exists()


def test_accumulate_trains_on_all_iterations_so_far(tmp_path):
    run(scripted.config(tmp_path / "run", train=scripted.config(tmp_path)["train"] | {"data": "accumulate"}))
    assert {r["iteration"] for r in train_rows(tmp_path / "run", 2)} == {0, 1}


def test_warm_start_makes_an_iter_0_model_and_test_sets_come_last(tmp_path, check_folder):
    evaluate = {"validation": 0.2, "tasks": [{"name": "chain", "args": {"seed": 77, "per_level": 2}}], "pass_at_k": [1, 4]}
    result = run(scripted.config(tmp_path / "run", warm_start={"limit": 10}, evaluate=evaluate, keep_models="all"))
    assert check_folder(tmp_path / "run") == []
    rows = train_rows(tmp_path / "run", 0)
    assert len(rows) == 10
    assert {r["source"] for r in rows} == {"warm_start"}
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        tested = {i for (i,) in db.execute("select distinct iteration from evaluations where split = 'test'")}
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert tested == {0, state["stages"]["test"]["final"], state["stages"]["test"]["chosen"]}
    assert 0 <= result.metrics[-1]["test/chain/maj@4"] <= result.metrics[-1]["test/chain/pass@4"] <= 1


def test_a_warm_start_on_other_data_trains_on_no_validation_question(tmp_path):
    """The same questions under other ids: those of validation are left out, and said to be."""
    config = scripted.config(tmp_path / "run", iterations=1, evaluate={"validation": 0.25})
    data = load_data(load_config(config))
    data.grader.close()
    assert data.validation
    path = tmp_path / "seed.jsonl"
    lines = [
        {"id": f"other-{q.id}", "question": q.question, "answer": q.answer, "rationale": q.rationale}
        for q in (*data.train, *data.validation)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(config | {"warm_start": {"tasks": [{"name": "chain", "path": str(path)}]}})
    trained = {r["query_id"] for r in train_rows(tmp_path / "run", 0)}
    assert trained == {f"other-{q.id}" for q in data.train}
    dropped = pq.read_table(tmp_path / "run" / "iter_0" / "dropped.parquet").to_pylist()
    assert {(r["query_id"], r["reason"]) for r in dropped} == {(f"other-{q.id}", "in_validation") for q in data.validation}
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert metrics["train/dropped/in_validation"] == len(data.validation)


def test_keep_models_bounds_the_disk(tmp_path):
    for keep, kept in {"all": {1, 2, 3}, "last": {3}}.items():
        run(scripted.config(tmp_path / keep, keep_models=keep, iterations=3))
        assert {int(p.parent.name[5:]) for p in (tmp_path / keep).glob("iter_*/model")} == kept
    run(scripted.config(tmp_path / "best", iterations=3))
    assert len(list((tmp_path / "best").glob("iter_*/model"))) <= 2


def test_nothing_accepted_stops_with_exit_code_3_and_keeps_everything(tmp_path, capsys):
    config = scripted.config(tmp_path / "run", engine={"kind": "scripted", "function": f"{scripted.HERE.parent / 'own_check.py'}:dumb"})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["run", str(path), "--log", "quiet"]) == NothingAccepted.exit_code == 3
    assert "no rollout was accepted" in capsys.readouterr().err
    assert len(dump(tmp_path / "run")) > 0
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_failing_engine_stops_the_run_and_keeps_what_it_gave(tmp_path):
    config = scripted.config(
        tmp_path / "run",
        engine={"kind": "scripted", "function": f"{scripted.HERE.parent / 'own_check.py'}:breaks"},
        evaluate={"validation": 0},
    )
    with pytest.raises(RuntimeError, match="the engine died"):
        run(config)
    assert len(dump(tmp_path / "run")) == 20


def test_bad_requests_are_rows_with_a_status(tmp_path):
    config = scripted.config(
        tmp_path / "run", engine={"kind": "scripted", "function": f"{scripted.HERE.parent / 'own_check.py'}:mixed"}, iterations=1
    )
    line = run(config).metrics[1]
    for status in ("correct", "truncated", "error", "too_long"):
        assert line[f"sample/status/{status}"] > 0


def test_output_dir_of_strangers_and_of_another_process_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(GsiError, match="not empty"):
        run(scripted.config(tmp_path / "full"))
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    code = f"import fcntl, sys, time; f = open({str(tmp_path / 'busy' / 'run.lock')!r}, 'a+'); fcntl.flock(f, 2); f.write('process 1 on host'); f.flush(); print('ok', flush=True); time.sleep(60)"
    (tmp_path / "busy").mkdir()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(GsiError, match="in use by process 1 on host"):
            run(scripted.config(tmp_path / "busy"))
        holder.kill()
    run(scripted.config(tmp_path / "busy", iterations=1))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_kill_saves_everything_and_says_how_to_go_on(tmp_path, how):
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            scripted.config(tmp_path / "run", strategy="brute_force", tasks=[{"name": "chain", "args": {"seed": 1, "per_level": 30}}])
        )
    )
    env = os.environ | {"SCRIPTED_DELAY": "0.002", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-m", "gsi", "run", str(path), "--log", "quiet"], env=env, stderr=subprocess.PIPE, text=True)
    ledger = tmp_path / "run" / "ledger.sqlite"
    while child.poll() is None and not (ledger.exists() and (tmp_path / "run" / "iter_0").exists()):
        time.sleep(0.02)
    time.sleep(0.3)
    child.send_signal(how)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "The same command goes on from here" in err
    rows = dump(tmp_path / "run")
    assert rows
    done = subprocess.run(
        [sys.executable, "-m", "gsi", "status", str(tmp_path / "run")], capture_output=True, text=True, env=env, check=True
    )
    assert "next: iter_1/sample" in done.stdout


@pytest.mark.parametrize("strategy", ["brute_force", "state_reset"])
def test_kill_and_resume_equals_the_undisturbed_run(tmp_path, strategy):
    """A real process, killed with SIGKILL again and again at different places, ends where an undisturbed one does."""
    undisturbed = scripted.config(tmp_path / "calm", strategy=strategy)
    run(undisturbed)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(scripted.config(tmp_path / "run", strategy=strategy)))
    env = os.environ | {"SCRIPTED_DELAY": "0.002", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "gsi", "run", str(path), "--log", "quiet"]
    kills, seen = 0, 0
    for delay in (0.7, 0.9, 1.2, 0.8, 1.0, 120):
        child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        started = time.monotonic()
        while child.poll() is None and time.monotonic() - started < delay:
            time.sleep(0.01)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        _, err = child.communicate()
        assert child.returncode in (0, -signal.SIGKILL), err.decode()
        if (tmp_path / "run" / "ledger.sqlite").exists():
            rows = len(dump(tmp_path / "run"))
            assert rows >= seen, "a committed rollout was lost"
            seen = rows
        if child.returncode == 0:
            break
    assert kills > 0
    assert child.returncode == 0, "the last run was not killed"
    assert dump(tmp_path / "run") == dump(tmp_path / "calm")
    assert dump(tmp_path / "run", "evaluations") == dump(tmp_path / "calm", "evaluations")
    for n in (1, 2):
        assert train_rows(tmp_path / "run", n) == train_rows(tmp_path / "calm", n)
    assert not list((tmp_path / "run").rglob("*.part"))

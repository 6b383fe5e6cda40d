"""The tail monitor: it sees what is taken away, says so everywhere, stops or rolls back, and is quiet where nothing changed."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsi import load_config, run
from gsi.cli import main
from gsi.config import ConfigError
from gsi.files import read_json
from gsi.lab.chance import never_again
from gsi.lab.monitor_check import LEAST, alarms, false_alarms, power, run_changes, unpack
from gsi.monitor import FIGURES, THRESHOLD, Seen, changes, differ
from gsi.types import GsiError
from gsi.watch import Narrowing
from tests.scripted import config

LEDGERS = {name: unpack(packed) for name, packed in json.loads((Path(__file__).parent / "lab_ledgers.json").read_text()).items()}


def by_figure(was, now, hard=(), perplexity=None):
    return {c.figure: c for c in changes(was, now, set(hard), perplexity)}


def alike(n=100, **changed):
    return {f"q{i}": replace(Seen(f"t {1 + i % 5}", 8, 4, 2, 1, 0.5, 5, 50), **changed) for i in range(n)}


HARD = [f"q{i}" for i in range(4, 100, 5)]


@pytest.mark.parametrize(
    ("figure", "now"),
    [
        ("hard_coverage", lambda q, s: replace(s, plain_right=0, guided_right=0) if q in HARD else s),
        ("hard_share", lambda q, s: replace(s, rows=1) if q in HARD else s),
        ("effective_queries", lambda q, s: replace(s, rows=s.rows if int(q[1:]) % 2 else 0)),
        ("distinct", lambda q, s: replace(s, differ=0.1)),
        ("length", lambda q, s: replace(s, tokens=30)),
        ("length", lambda q, s: replace(s, tokens=80)),
        ("lost", lambda q, s: replace(s, plain_right=0)),
        ("gap", lambda q, s: replace(s, plain_right=1, guided_right=2)),
    ],
)
def test_every_figure_sees_its_own_kind_of_narrowing(figure, now):
    was = alike()
    found = by_figure(was, {q: now(q, s) for q, s in was.items()}, HARD)[figure]
    assert found.alarm(THRESHOLD, LEAST), found
    back = by_figure({q: now(q, s) for q, s in was.items()}, was, HARD).get(figure)
    assert figure == "length" or not back or not back.alarm(THRESHOLD, LEAST), "the other way is no narrowing"


def test_perplexity_that_falls_is_an_alarm():
    assert by_figure(alike(), alike(), perplexity=((1.4, 0.4, 128), (1.1, 0.4, 128)))["perplexity"].alarm(THRESHOLD, LEAST)
    assert not by_figure(alike(), alike(), perplexity=((1.1, 0.4, 128), (1.4, 0.4, 128)))["perplexity"].alarm(THRESHOLD, LEAST)


@settings(max_examples=60, deadline=None)
@given(st.randoms(), st.integers(1, 60))
def test_nothing_changed_is_no_change_and_order_plays_no_part(rng, n):
    was = {
        f"q{i}": Seen(f"t {i % 3}", 8, rng.randint(0, 8), 4, rng.randint(0, 4), 0.5, rng.randint(0, 6), rng.randint(6, 90))
        for i in range(n)
    }
    assert all(c.z <= 1e-9 or c.figure == "lost" for c in changes(was, was, {"q1"}))
    now = {q: replace(s, rows=rng.randint(0, 6), plain_right=rng.randint(0, 8)) for q, s in was.items()}
    shuffled = dict(sorted(now.items(), key=lambda x: rng.random()))
    assert changes(was, now, {"q1"}) == changes(dict(reversed(was.items())), shuffled, {"q1"})
    more = now | {"new": Seen("t 1", 8, 0, rows=100, tokens=1)}
    assert changes(was, more, {"q1"}) == changes(was, now, {"q1"}), "who was not asked before is left out on both sides"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=6))
def test_how_often_rationales_differ_is_a_probability(counts):
    value = differ(counts)
    assert (value is None) == (sum(counts) < 2)
    if value is not None:
        pool = [i for i, c in enumerate(counts) for _ in range(c)]
        pairs = [a != b for i, a in enumerate(pool) for b in pool[i + 1 :]]
        assert value == pytest.approx(sum(pairs) / len(pairs))


def test_lost_is_held_against_what_chance_takes():
    assert never_again(8, 8, 0) == 1
    assert never_again(0, 8, 8) > 0.7 > 0.01 > never_again(8, 8, 8)
    rng = random.Random(5)
    rates = [rng.betavariate(0.5, 1) for _ in range(3000)]
    draw = lambda: {f"q{i}": Seen("t 1", 8, sum(rng.random() < p for _ in range(8))) for i, p in enumerate(rates)}  # noqa: E731
    found = by_figure(draw(), draw())["lost"]
    assert found.was > 50, "chance alone takes many"
    assert abs(found.z) < 3


def test_few_false_alarms_and_power_on_real_ledgers():
    """A part of `python -m gsi.lab.monitor_check tests/lab_ledgers.json`, whose figures are in docs/curation.md."""
    ledger, hard = LEDGERS["null1"]
    assert false_alarms(ledger, range(1000, 1020), THRESHOLD)["with_alarm"] <= 3
    seen = power(ledger, hard, THRESHOLD, times=6)
    assert seen["0.0"] == 0
    assert seen["0.5"] == 1
    assert not alarms(ledger, hard, THRESHOLD)
    assert set(run_changes(ledger, hard)[0]) <= set(FIGURES)


# --------------------------------------------------------------------------------------- in a run


def forgetting(request, model):
    """Hard questions are solved by the models of the first two iterations only."""
    if re.search(r"iter_[2-9]", model) and request.query.level > 4 and request.sampling.temperature:
        return "# 0"
    return request.query.rationale[len(request.given.text) :]


def world(folder, **changes):
    c = config(
        folder,
        iterations=4,
        tasks=[{"name": "chain", "args": {"seed": 1, "per_level": 12}, "hard_levels": [5, 6, 7, 8, 9, 10]}],
        keep_models="all",
    )
    c |= {"sample": {"k": 2, "wanted": 1}, "engine": {"kind": "scripted", "function": f"{__file__}:forgetting"}}
    return c | changes


def test_an_alarm_is_said_kept_and_shown(tmp_path, capsys, check_folder):
    folder = tmp_path / "run"
    (tmp_path / "c.yaml").write_text(json.dumps(world(folder)))
    assert main(["run", str(tmp_path / "c.yaml"), "--log", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    said = [e for e in events if e.get("alarm") == "hard_share"]
    assert said[0]["iteration"] == 3
    assert said[0]["now"] < 0.05 < 0.5 < said[0]["was"]
    assert "ALARM, iteration 3: share of hard questions among the training rows: from" in said[0]["text"]
    assert "curate.cap" in said[0]["text"]
    state = read_json(folder / "run.json")
    assert any("hard questions" in text for text in state["alarms"]["3"])
    assert "2" not in state["alarms"]
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[3]["monitor/hard_share"] > THRESHOLD
    assert lines[3]["monitor/alarms"] == len(state["alarms"]["3"])
    assert lines[2]["monitor/alarms"] == 0
    assert main(["status", str(folder)]) == 0
    assert "ALARM, iteration 3" in capsys.readouterr().out
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "ALARM, iteration 3" in page
    assert "Tail monitor" in page
    assert check_folder(folder) == []


def test_stop_ends_the_run_before_training_and_can_be_lifted(tmp_path):
    folder, c = tmp_path / "run", world(tmp_path / "run", monitor={"on_alarm": "stop"})
    for _ in range(2):
        with pytest.raises(Narrowing, match=r"(?s)iteration 3 is not trained .*hard questions.*monitor.on_alarm=warn") as e:
            run(c)
        assert e.value.exit_code == 2
        assert not (folder / "iter_3" / "model").exists()
    assert len(run(c | {"monitor": {"on_alarm": "warn"}}).metrics) == 5


def test_rollback_goes_on_with_the_best_earlier_model(tmp_path, check_folder):
    folder = tmp_path / "run"
    lines = run(world(folder, monitor={"on_alarm": "rollback"})).metrics
    state = read_json(folder / "run.json")
    back = state["stages"]["iter_3/train"]["rolled_back_to"]
    assert back in (0, 1), "not the model whose draws raised the alarm"
    assert state["models"]["3"] == state["models"][str(back)]
    assert not (folder / "iter_3" / "train.parquet").exists()
    assert lines[4]["tail/hard_coverage"] == 1, "the next iteration draws with the model that still could"
    assert lines[4]["monitor/alarms"] == 0
    assert (folder / "iter_4" / "train.parquet").exists()
    import pyarrow.parquet as pq

    assert "rolled_back" in pq.read_table(folder / "iter_3" / "dropped.parquet")["reason"].to_pylist()
    assert check_folder(folder) == []
    assert main(["report", str(folder)]) == 0


def test_a_run_that_rolled_back_goes_on_is_repaired_and_trains_on_nothing_of_it(tmp_path, capsys):
    """Opened again, after a kill between the decision and the files, and after a repair that chose the rows again."""
    import pyarrow.parquet as pq

    folder, settings = tmp_path / "run", {"monitor": {"on_alarm": "rollback"}}
    once = run(world(folder, **settings)).metrics
    dropped = pq.read_table(folder / "iter_3" / "dropped.parquet")
    assert read_json(folder / "run.json")["stages"]["iter_3/train"]["rolled_back_to"] in (0, 1)
    again = run(world(folder, **settings)).metrics
    assert [line.get("sample/rollouts") for line in again] == [line.get("sample/rollouts") for line in once]

    rows = dropped.filter([reason == "rolled_back" for reason in dropped["reason"].to_pylist()]).drop_columns(["reason"])
    pq.write_table(rows, folder / "iter_3" / "train.parquet")  # as it was when a kill came
    run(world(folder, **settings))
    assert not (folder / "iter_3" / "train.parquet").exists()
    assert pq.read_table(folder / "iter_3" / "dropped.parquet")["reason"].to_pylist() == dropped["reason"].to_pylist()

    (folder / "iter_3" / "dropped.parquet").write_bytes(b"damaged")
    assert main(["doctor", str(folder)]) == 0
    run(world(folder, **settings))
    assert not (folder / "iter_3" / "train.parquet").exists()
    assert sorted(pq.read_table(folder / "iter_3" / "dropped.parquet")["reason"].to_pylist()) == sorted(dropped["reason"].to_pylist())
    assert main(["doctor", str(folder)]) == 0
    assert "all files are whole" in capsys.readouterr().out

    folder = tmp_path / "accumulated"
    train = config(folder)["train"] | {"data": "accumulate"}
    run(world(folder, **settings, train=train))
    back = [n for n in (3, 4) if "rolled_back_to" in read_json(folder / "run.json")["stages"][f"iter_{n}/train"]]
    assert back[0] == 3
    table = pq.read_table(folder / "iter_4" / ("dropped.parquet" if 4 in back else "train.parquet"))
    chosen = [
        i
        for i, reason in zip(
            table["iteration"].to_pylist(), table["reason"].to_pylist() if 4 in back else ["rolled_back"] * len(table), strict=True
        )
        if reason == "rolled_back"
    ]
    assert chosen
    assert 2 not in chosen, "what iteration 3 was not trained on does not come back with iteration 4"


def test_off_measures_nothing(tmp_path):
    assert "monitor/alarms" not in run(world(tmp_path / "run", monitor={"on_alarm": "off"})).metrics[3]


@pytest.mark.parametrize(
    ("changes_", "says"),
    [
        (["monitor.on_alarm=rollback"], "keep_models: all"),
        (["monitor.on_alarm=panic"], "rollback"),
        (["monitor.treshold=3"], "did you mean 'threshold'"),
    ],
)
def test_wrong_settings_are_named(changes_, says):
    with pytest.raises(ConfigError) as e:
        load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "t"}]}, changes_)
    assert says in str(e.value)
    assert isinstance(e.value, GsiError)

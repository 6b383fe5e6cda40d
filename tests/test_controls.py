"""The control arms, through the public entry points, in the scripted world: each lacks exactly one thing of the arms it is compared with."""

import re
import sqlite3
from collections import Counter

import pyarrow.parquet as pq
import pytest
import scripted
import yaml
from test_loop import dump, run, train_rows

from gsi import load_config
from gsi.cli import main
from gsi.lab import chain
from gsi.strategies import CONTROLS
from gsi.types import GsiError

CONFIG = {"tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 6}}], "evaluate": {"validation": 0}}
QUERIES = {q.id: q for q in chain.queries(1, 6)}


def arm(tmp_path, strategy, **changes):
    run(scripted.config(tmp_path / strategy, strategy=strategy, **(CONFIG | changes)))
    return tmp_path / strategy


def select(folder, sql):
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        return db.execute(sql).fetchall()


def texts(row):
    return row["query_id"], row["attempt"], row["completion"]


def levels(rows):
    return Counter(QUERIES[r["query_id"]].level for r in rows)


def test_all_references_and_nothing_drawn(tmp_path, check_folder):
    folder = arm(tmp_path, "sft_refs_all", iterations=1)
    rows = train_rows(folder, 1)
    assert {r["query_id"]: r["completion"] for r in rows} == {q.id: q.rationale for q in QUERIES.values()}
    assert {r["source"] for r in rows} == {"reference"}
    assert dump(folder) == []
    assert check_folder(folder) == []


@pytest.mark.parametrize("strategy", ["sft_refs_all", "sft_refs_hard", "refs_truncated"])
def test_a_plan_counts_the_rows_made_from_references(tmp_path, capsys, strategy):
    settings = scripted.config(tmp_path / strategy, strategy=strategy, **CONFIG | {"iterations": 1})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["run", str(tmp_path / "config.yaml"), "--dry-run"]) == 0
    planned = re.search(r"train: rows +│ ([\d,]+)(?: to ([\d,]+))? ", capsys.readouterr().out)
    low, high = (int((planned[i] or planned[1]).replace(",", "")) for i in (1, 2))
    assert low <= len(train_rows(arm(tmp_path, strategy, iterations=1), 1)) <= high
    added = {"sft_refs_all": 60, "sft_refs_hard": 60, "refs_truncated": 8 * 60}[strategy]
    assert high == added + (0 if strategy == "sft_refs_all" else 4 * 60)
    assert low == (60 if strategy == "sft_refs_all" else 48)


def test_a_probe_of_an_arm_that_draws_nothing_says_so(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(scripted.config(tmp_path / "run", strategy="sft_refs_all", **CONFIG)))
    assert main(["run", str(tmp_path / "config.yaml"), "--dry-run", "--probe", "5"]) == 0
    out = capsys.readouterr().out
    assert "probe: strategy sft_refs_all draws no attempts" in out
    assert re.search(r"train: rows +│ 60 ", out)


def test_references_of_the_queries_under_quota_beside_vanilla_s_rows(tmp_path, check_folder):
    vanilla, folder = arm(tmp_path, "vanilla", iterations=1), arm(tmp_path, "sft_refs_hard", iterations=1)
    rows = train_rows(folder, 1)
    own = [r for r in rows if r["source"] is None]
    assert own == train_rows(vanilla, 1)
    accepted = Counter(r["query_id"] for r in own)
    added = [r["query_id"] for r in rows if r["source"] == "reference"]
    assert sorted(added) == sorted(q for q in QUERIES if accepted[q] < 2)
    assert 0 < len(added) < len(QUERIES)
    assert check_folder(folder) == []


def test_openings_alone(tmp_path, check_folder):
    folder = arm(tmp_path, "refs_truncated", iterations=1)
    added = [r for r in train_rows(folder, 1) if r["source"] == "reference"]
    assert len(added) == len({(r["query_id"], r["completion"]) for r in added}) > 0
    for r in added:
        rationale = QUERIES[r["query_id"]].rationale
        assert rationale.startswith(r["completion"])
        assert "#" not in r["completion"]
        assert sum(r["loss_mask"]) == len(r["completion"].encode())  # the opening is trained, to its last token, without an end token
    helped = arm(tmp_path, "state_reset", iterations=1)
    handed = set(select(helped, "SELECT query_id, given FROM rollouts WHERE guidance IS NOT NULL"))
    assert handed <= {(r["query_id"], r["completion"]) for r in added}
    assert check_folder(folder) == []


def test_openings_and_rows_of_another_run_that_are_too_long_are_dropped(tmp_path, check_folder):
    (tmp_path / "long").mkdir()
    whole = arm(tmp_path / "long", "refs_truncated", iterations=1)
    every = {texts(r): len(r["input_ids"]) for r in train_rows(whole, 1) if r["source"]}
    assert min(every.values()) < 120 < max(every.values())
    train = scripted.config(tmp_path)["train"] | {"max_length": 120}
    folder = arm(tmp_path, "refs_truncated", iterations=1, train=train)
    added = [r for r in train_rows(folder, 1) if r["source"]]
    assert {texts(r) for r in added} == {key for key, size in every.items() if size <= 120}
    dropped = pq.read_table(folder / "iter_1" / "dropped.parquet").to_pylist()
    assert {texts(r) for r in dropped if r["source"]} == {key for key, size in every.items() if size > 120}
    assert {r["reason"] for r in dropped} == {"too_long"}
    again = arm(tmp_path, "vanilla", iterations=1, train=train, control=True, curate={"rows_of": str(whole)})
    assert [texts(r) for r in train_rows(again, 1)] == [texts(r) for r in train_rows(whole, 1) if len(r["input_ids"]) <= 120]
    lost = pq.read_table(again / "iter_1" / "dropped.parquet").to_pylist()
    assert [(texts(r), r["reason"]) for r in lost] == [(texts(r), "too_long") for r in train_rows(whole, 1) if len(r["input_ids"]) > 120]
    assert check_folder(folder) == check_folder(again) == []


def test_every_opening_is_replayed(tmp_path):
    (tmp_path / "without").mkdir()
    without = arm(tmp_path / "without", "refs_truncated")
    folder = arm(tmp_path, "refs_truncated", train=scripted.config(tmp_path)["train"] | {"replay": 9.0})
    first, fresh, second = ({texts(r) for r in train_rows(f, n) if r["source"]} for f, n in ((folder, 1), (without, 2), (folder, 2)))
    assert max(Counter(query_id for query_id, _, _ in first - fresh).values()) > 1, "a query that no longer needs help had several"
    assert second == first | fresh


def test_hard_rows_repeated_to_the_guided_arm_s_levels(tmp_path, check_folder):
    guided = arm(tmp_path, "state_reset")
    plain = arm(tmp_path, "vanilla")
    folder = arm(tmp_path, "repeat_hard", curate={"like": str(guided)})
    own, target, rows = levels(train_rows(plain, 1)), levels(train_rows(guided, 1)), levels(train_rows(folder, 1))
    assert rows == {level: max(count, target[level]) for level, count in own.items()}
    assert any(target[level] > count for level, count in own.items())
    assert {texts(r) for r in train_rows(folder, 1)} == {texts(r) for r in train_rows(plain, 1)}  # nothing but vanilla's own rows
    assert check_folder(folder) == []


def test_as_many_rows_as_the_guided_arm_from_brute_force(tmp_path, check_folder):
    guided = arm(tmp_path, "state_reset", iterations=1)
    brute = arm(tmp_path, "brute_force", iterations=1)
    folder = arm(tmp_path, "matched_random", iterations=1, curate={"like": str(guided)})
    rows, all_rows, wanted = train_rows(folder, 1), train_rows(brute, 1), len(train_rows(guided, 1))
    assert len(rows) == min(wanted, len(all_rows))
    assert all(row in all_rows for row in rows)
    assert check_folder(folder) == []


def test_rows_whatever_their_verdict(tmp_path, check_folder):
    with pytest.raises(GsiError, match="control: true"):
        arm(tmp_path, "random_kept")
    folder = arm(tmp_path, "random_kept", control=True, iterations=1)
    plain = arm(tmp_path, "vanilla", iterations=1)
    counts = [Counter(r["query_id"] for r in train_rows(f, 1)) for f in (folder, plain)]
    assert counts[0] == counts[1]
    right = {(q, a): c for q, a, c in select(folder, "SELECT query_id, attempt, correct FROM rollouts")}
    assert 0 < sum(right[r["query_id"], r["attempt"]] for r in train_rows(folder, 1)) < len(train_rows(folder, 1))
    assert check_folder(folder) == []


@pytest.mark.parametrize("kind", ["state_reset", "rationale_driven", "answer_driven"])
def test_sham_hints_come_from_another_query(tmp_path, kind, check_folder):
    folder = arm(tmp_path, "sham_hint", iterations=1, guidance={"kind": kind})
    rows = select(folder, "SELECT query_id, guidance, prompt, given FROM rollouts WHERE guidance IS NOT NULL")
    assert rows
    for query_id, label, prompt, given in rows:
        query = QUERIES[query_id]
        assert label.startswith(f"sham_{kind}")
        assert query.question in prompt
        if given:
            assert not query.rationale.startswith(given)
        else:
            assert query.rationale not in prompt
        shown = given or prompt.replace(query.question, "")
        donors = [q for q in QUERIES.values() if q.level == query.level and (q.rationale.startswith(given) if given else True)]
        assert any(d.id != query_id and (given or d.rationale in shown or f" {d.answer}." in shown) for d in donors)
    assert check_folder(folder) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "repeat_hard"}, "curate.like"),
        ({"strategy": "matched_random"}, "curate.like"),
        ({"strategy": "vanilla", "guidance": {"sham": True}}, "guidance.sham"),
    ],
)
def test_what_a_control_needs_is_asked_for(changes, message):
    with pytest.raises(GsiError, match=message):
        load_config(scripted.config("out", **changes))


def test_a_run_to_match_that_is_not_there_or_has_other_queries(tmp_path):
    with pytest.raises(GsiError, match=r"run .* up to iteration 1 first"):
        arm(tmp_path, "repeat_hard", curate={"like": str(tmp_path / "nowhere")})
    other = tmp_path / "other"
    run(scripted.config(other, strategy="vanilla", tasks=[{"name": "chain", "args": {"seed": 2, "per_level": 6}}], iterations=1))
    with pytest.raises(GsiError, match="does not train on"):
        arm(tmp_path, "matched_random", curate={"like": str(other)})


def test_references_that_no_query_has(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"id": "{i}", "question": "d {i} e + 1 ?", "answer": "{i + 1}"}}\n' for i in range(5)))
    with pytest.raises(GsiError, match=r"curate.references.*no query has one"):
        run(scripted.config(tmp_path / "run", strategy="sft_refs_hard", tasks=[{"name": "auto", "path": str(path)}]))


def test_equal_training_columns(tmp_path):
    """Rows of references have the same columns and types as rows of rollouts, so that TRL reads both."""
    folder = arm(tmp_path, "sft_refs_hard", iterations=1)
    table = pq.read_table(folder / "iter_1" / "train.parquet")
    assert table.schema == pq.read_table(folder / "iter_1" / "dropped.parquet").drop_columns(["reason"]).schema


def test_compare_runs_the_controls_of_a_run_once_and_adds_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    guided = arm(tmp_path, "state_reset", iterations=1)
    assert main(["compare", str(guided), "--controls"]) == 0
    printed = capsys.readouterr().out
    folders = sorted(p.name for p in (tmp_path / "state_reset-controls").iterdir())
    assert folders == sorted(CONTROLS)
    assert all(name in printed for name in CONTROLS)
    before = {name: (tmp_path / "state_reset-controls" / name / "ledger.sqlite").stat().st_mtime_ns for name in CONTROLS}
    assert main(["compare", str(guided), "--controls"]) == 0
    assert before == {name: (tmp_path / "state_reset-controls" / name / "ledger.sqlite").stat().st_mtime_ns for name in CONTROLS}


def test_controls_of_what_is_no_run(tmp_path, capsys):
    folder = tmp_path / "plain"
    assert main(["compare", str(folder), "--controls"]) == 2
    assert "no config.yaml in it" in capsys.readouterr().err

"""Files of a finished run, broken one at a time: found when the run is opened, named, repaired by `gsi doctor`, and the run goes on."""

import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
import scripted
import yaml
from test_loop import QUIET, dump, train_rows

import gsi
from gsi.cli import main
from gsi.ledger import Ledger
from gsi.runfolder.state import read_state
from gsi.types import GsiError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    evaluate = {"validation": 0.2, "tasks": [{"name": "chain", "args": {"seed": 77, "per_level": 1}}]}
    gsi.run(scripted.config(path, strategy="state_reset", keep_models="all", evaluate=evaluate), reporter=QUIET)
    return path


@pytest.fixture
def run(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def again(run: Path):
    """The same command once more, under the folder's new name."""
    return gsi.run(yaml.safe_load((run / "config.yaml").read_text()) | {"output_dir": str(run)}, reporter=QUIET)


def same(a: Path, b: Path) -> bool:
    """Whether two runs hold the same rows, training sets, results and, but for times, metrics."""
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if "seconds" not in k and not k.startswith("time/")}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (a, b)
    ]
    return (
        all(dump(a, t) == dump(b, t) for t in ("rollouts", "evaluations"))
        and all(train_rows(a, n) == train_rows(b, n) for n in (1, 2))
        and all((a / f"iter_{n}" / "eval.json").read_text() == (b / f"iter_{n}" / "eval.json").read_text() for n in (0, 1, 2))
        and lines[0] == lines[1]
    )


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES = [
    "iter_1/train.parquet",
    "iter_2/dropped.parquet",
    "iter_1/model/skill.json",
    "iter_2/model/skill.json",
    "iter_1/eval.json",
    "iter_2/eval.json",
    "run.json",
]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_named_repaired_and_made_again(whole, run, capsys, damage):
    rng = random.Random(damage)
    for name in FILES:
        path = run / name
        if damage == "truncated":
            truncate(path)
        elif damage == "flipped":
            flip(path, rng.randrange(path.stat().st_size))
        else:
            path.unlink()
        with pytest.raises(GsiError, match=r"gsi doctor") as e:
            again(run)
        assert str(path) in str(e.value)
        assert main(["doctor", str(run), "--check"]) == 2, "says what is wrong and changes nothing"
        assert main(["doctor", str(run)]) == 0
        assert str(path) in capsys.readouterr().out
        again(run)
        assert main(["doctor", str(run)]) == 0
        assert "all files are whole" in capsys.readouterr().out
        assert same(run, whole), name


def test_figures_of_test_questions_that_are_also_trained_on_survive_a_repair(tmp_path, capsys):
    run = gsi.run(scripted.overlapping(tmp_path, iterations=1), reporter=QUIET).path
    names = ("iter_0/eval.json", "iter_1/eval.json", "metrics.jsonl")
    before = {name: (run / name).read_text() for name in names}
    assert json.loads(before["iter_1/eval.json"])["test"]["gsm8k"]["overlap/left_out"] == 1
    for name in names[:2]:
        truncate(run / name)
    assert main(["doctor", str(run)]) == 0
    assert {name: (run / name).read_text() for name in names} == before
    assert "metrics.jsonl" not in capsys.readouterr().out

    truncate(run / "iter_1" / "eval.json")
    truncate(run / "overlap.jsonl")
    assert main(["doctor", str(run)]) == 2
    assert "overlap.jsonl: cannot be read" in capsys.readouterr().out


def test_config_and_metrics_are_written_again_from_what_is_left(whole, run, capsys):
    again(run)  # under this folder's name
    for name in ("config.yaml", "metrics.jsonl", "run.json.copy"):
        before = (run / name).read_bytes()
        truncate(run / name)
        assert main(["doctor", str(run)]) == 0
        assert f"{run / name}: " in capsys.readouterr().out
        if name != "run.json.copy":
            assert (run / name).read_bytes() == before
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"iteration": 1', '"iteration": 7'))
    assert main(["doctor", str(run)]) == 0
    assert (run / "metrics.jsonl").read_text() == text
    assert same(run, whole)


def test_neither_run_json_nor_its_copy_is_beyond_repair(run, capsys):
    truncate(run / "run.json")
    truncate(run / "run.json.copy")
    assert main(["doctor", str(run)]) == 2
    assert "cannot be repaired" in capsys.readouterr().out


def test_a_flipped_bit_in_a_response_is_seen_and_only_that_row_is_drawn_again(whole, run, capsys):
    sql = "select prompt || given || response from rollouts where iteration = 1 and guidance is null and length(response) < 200 limit 1"
    (text,) = sqlite3.connect(run / "ledger.sqlite").execute(sql).fetchone()
    data = (run / "ledger.sqlite").read_bytes()
    flip(run / "ledger.sqlite", data.index(text.encode()) + len(text) - 1)
    assert sqlite3.connect(run / "ledger.sqlite").execute("pragma integrity_check").fetchone() == ("ok",), "SQLite sees nothing"
    with pytest.raises(GsiError, match=r"is not what was written[\s\S]*gsi doctor"):
        again(run)
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    with pytest.raises(GsiError, match="is not what was written"):
        list(ledger.rows())
    ledger.close()
    assert main(["doctor", str(run)]) == 0
    assert "1 that changed left out" in capsys.readouterr().out
    assert len(dump(run)) == len(dump(whole)) - 1
    again(run)
    assert same(run, whole)


@pytest.mark.parametrize("damage", ["half", "pages", "header", "magic", "empty", "gone", "schema"])
def test_a_broken_ledger_gives_back_its_whole_rows_and_the_rest_is_drawn_again(whole, run, capsys, damage):
    path = run / "ledger.sqlite"
    size = path.stat().st_size
    rng = random.Random(3)
    if damage == "half":
        truncate(path)
    elif damage == "pages":
        with path.open("r+b") as f:
            for page in rng.sample(range(8, size // 4096), 6):
                f.seek(page * 4096)
                f.write(rng.randbytes(4096))
    elif damage == "header":
        with path.open("r+b") as f:
            f.seek(16)
            f.write(b"\xff\xff")
    elif damage == "magic":
        flip(path, 3)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "schema":
        with path.open("r+b") as f:
            f.seek(100)
            f.write(rng.randbytes(3000))
    else:
        path.unlink()
    with pytest.raises(GsiError, match=r"ledger\.sqlite[\s\S]*gsi doctor"):
        again(run)
    assert main(["doctor", str(run)]) == 0
    kept = len(dump(run))
    print(f"{damage}: {kept} of {len(dump(whole))} rollouts kept")
    assert kept > {"half": 20, "pages": 0.5 * len(dump(whole)), "magic": len(dump(whole)) - 1}.get(damage, -1)
    assert set(dump(run)) <= set(dump(whole)), "only what was written"
    again(run)
    assert same(run, whole)
    assert main(["doctor", str(run)]) == 0
    assert "all files are whole" in capsys.readouterr().out


def test_rows_whose_model_is_gone_are_given_up_aloud(run, capsys):
    state = read_state(run)
    del state["models"]["1"]  # as keep_models: last does
    del state["stages"]["iter_1/train"]["files"]
    (run / "run.json").write_text(json.dumps(state))
    shutil.rmtree(run / "iter_1" / "model")
    with sqlite3.connect(run / "ledger.sqlite") as db:
        db.execute("delete from rollouts where iteration = 1 and attempt = 0")
    db.close()
    assert main(["doctor", str(run)]) == 0
    out = capsys.readouterr().out
    assert "iter_2/sample" in out
    assert "the run goes on without" in out
    assert len(again(run).metrics) == 3


def test_a_ledger_of_version_1_opens_and_is_brought_up(whole, run):
    """As written before rows had checksums."""
    with sqlite3.connect(run / "ledger.sqlite") as db:
        for table in ("rollouts", "evaluations", "archived"):
            db.execute(f"alter table {table} drop column crc")
        db.execute("pragma user_version = 1")
    db.close()
    old = Ledger(run / "ledger.sqlite", read_only=True)
    count = len(list(old.rows()))
    old.close()
    assert count == len(dump(whole))
    again(run)
    columns = [c[1] for c in sqlite3.connect(run / "ledger.sqlite").execute("pragma table_info(rollouts)")]
    assert columns[-1] == "crc"


def test_what_a_killed_process_was_writing_is_removed(run):
    (run / "iter_2" / "model.part").mkdir()
    for name in ("run.json.part", "iter_1/train.parquet.part", "iter_2/model.part/half.safetensors"):
        (run / name).write_text("half")
    again(run)
    assert not list(run.rglob("*.part"))


def test_ids_and_names_cannot_leave_the_run_folder(tmp_path):
    rows = [{"id": f"../../{i}/../x\x00", "question": f"{i} plus 1?", "answer": str(i + 1)} for i in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    own = scripted.HERE.parent / "own_check.py"
    config = scripted.config(
        tmp_path / "in" / "run",
        tasks=[{"name": "mine", "path": str(tmp_path / "data.jsonl"), "check": f"{own}:check"}],
        engine={"kind": "scripted", "function": f"{own}:respond"},
        evaluate={"validation": 0},
    )
    before = {p for p in tmp_path.rglob("*") if "in" not in p.parts}
    gsi.run(config, reporter=QUIET)
    assert {p for p in tmp_path.rglob("*") if "in" not in p.parts} == before
    assert {p.name for p in (tmp_path / "in").iterdir()} <= {"run"}

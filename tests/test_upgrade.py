"""Run folders and ledgers of every earlier form open, go on and lose nothing. Fixtures: tests/old_runs, one per form (made by its `make.py`)."""

import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest
import scripted
from test_loop import QUIET, dump

import gsi
from gsi.cli import main
from gsi.ledger import SCHEMA_VERSION, Ledger
from gsi.types import GsiError

OLD = sorted((Path(__file__).parent / "old_runs").glob("*.tar.gz"))


def rows(run: Path) -> list[tuple]:
    """Every rollout as it was written, whatever columns there were."""
    db = sqlite3.connect(run / "ledger.sqlite")
    found = db.execute(
        "select query_id, iteration, attempt, prompt, response, response_ids, status, seed, created_at from rollouts order by 2, 1, 3"
    ).fetchall()
    db.close()
    return found


@pytest.mark.parametrize("archive", OLD, ids=lambda p: p.name.removesuffix(".tar.gz"))
def test_a_run_folder_of_an_earlier_version_is_read_and_goes_on(tmp_path, monkeypatch, capsys, archive):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    before = rows(Path("run"))
    assert before
    assert main(["status", "run"]) == 0
    assert main(["report", "run"]) == 0
    assert main(["export", "run", "rollouts.jsonl", "--to", "rollouts"]) == 0
    assert rows(Path("run")) == before, "reading changes nothing"
    gsi.run("config.yaml", reporter=QUIET)
    assert rows(Path("run")) == before, "there is nothing to do"
    assert main(["run", "config.yaml", "iterations=2", "--log", "quiet"]) == 0, capsys.readouterr().err
    after = rows(Path("run"))
    assert [r for r in after if r[1] == 0] == before
    assert {r[1] for r in after} == {0, 1}
    assert main(["doctor", "run"]) == 0
    assert "all files are whole" in capsys.readouterr().out
    assert sqlite3.connect("run/ledger.sqlite").execute("pragma user_version").fetchone() == (SCHEMA_VERSION,)


FORMS = {  # of the ledger since the first commit: its version, and the tables it did not have yet
    "first": (1, ("queries", "scores", "spare_calls")), "with queries": (1, ("scores", "spare_calls")), "with scores": (1, ("spare_calls",)),
    "with checksums": (2, ("scores", "spare_calls")), "with both": (2, ("spare_calls",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    gsi.run(
        scripted.config(path, tasks=[{"name": "chain", "args": {"seed": 1, "per_level": 1}}], sample={"k": 2, "wanted": 1}), reporter=QUIET
    )
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_ledger_is_brought_up_without_losing_a_row(tmp_path, whole, form):
    version, missing = FORMS[form]
    path = tmp_path / "ledger.sqlite"
    shutil.copy(whole / "ledger.sqlite", path)
    with sqlite3.connect(path) as db:
        for table in missing:
            db.execute(f"drop table {table}")
        if version == 1:
            for table in ("rollouts", "evaluations", "archived"):
                db.execute(f"alter table {table} drop column crc")
        db.execute(f"pragma user_version = {version}")
    db.close()
    before, bytes_ = rows(tmp_path), path.read_bytes()
    old = Ledger(path, read_only=True)
    assert len(list(old.rows())) == len(before)
    assert old.scores() == {}
    assert old.query("select count(*) from queries") == [(0,)] or "queries" not in missing
    old.close()
    assert path.read_bytes() == bytes_, "reading changes nothing"
    new = Ledger(path)
    drawn = next(iter(new.rows()))
    new.archive(1, None, "now")
    new.add([drawn], "again")
    new.set_queries({"train": []})
    new.close()
    assert rows(tmp_path) == [r for r in before if r[1] == 0]
    db = sqlite3.connect(path)
    assert db.execute("pragma user_version").fetchone() == (SCHEMA_VERSION,)
    assert db.execute("select count(*) from archived where source = 'rollouts'").fetchone()[0] == sum(r[1] > 0 for r in before)
    fresh = Ledger(tmp_path / "fresh.sqlite")
    columns = "select m.name, p.name from sqlite_master m join pragma_table_info(m.name) p where m.type = 'table' order by 1, p.cid"
    assert db.execute(columns).fetchall() == fresh.query(columns)
    fresh.close()
    db.close()


def test_a_ledger_of_a_later_version_is_refused(tmp_path, whole):
    shutil.copy(whole / "ledger.sqlite", tmp_path / "ledger.sqlite")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(GsiError, match="ledger version 99"):
        Ledger(tmp_path / "ledger.sqlite")
    assert dump(whole)

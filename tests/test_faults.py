"""Kills, signals, a second process, full and failing disks: real processes, real signals, a real small file system where one can be mounted."""

import errno
import itertools
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import scripted
import yaml
from test_loop import QUIET, dump, train_rows

import gsi
from gsi.cli import main
from gsi.types import GsiError

HERE = Path(__file__).parent
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("calm") / "run"
    gsi.run(scripted.config(path), reporter=QUIET)
    return path


def equal(a: Path, b: Path) -> bool:
    return (
        dump(a) == dump(b)
        and dump(a, "evaluations") == dump(b, "evaluations")
        and all(train_rows(a, n) == train_rows(b, n) for n in (1, 2))
    )


@pytest.mark.training
def test_ten_kills_change_nothing():
    """`make torture` does a hundred."""
    command = [sys.executable, str(HERE / "torture.py"), "--kills", "10", "--seed", "1"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every run equals the undisturbed one" in done.stdout


KILLED = """
import os, signal, sys
from gsi.cli import main
left = int(sys.argv[1])
def watch(event, args):
    global left
    if event == "open" and str(args[0]).endswith("run.json.part"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("stage", ["curate", pytest.param("evaluate", marks=pytest.mark.torture)])
def test_a_stage_command_killed_at_any_record_leaves_a_run_that_ends_as_it_was(tmp_path, stage):
    """Just before each time that run.json is written, so also between what it says and what the ledger does."""
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(scripted.config(run, keep_models="all")))
    assert main(["run", str(config), "--log", "quiet"]) == 0
    shutil.copytree(run, tmp_path / "whole")
    for at in itertools.count(1):
        command = [sys.executable, "-c", KILLED, str(at), stage, str(run), "--iteration", "1"]
        code = subprocess.run(command, env=ENV, capture_output=True, check=False).returncode
        assert code in (-signal.SIGKILL, 0)
        assert main(["run", str(config), "--log", "quiet"]) == 0
        assert equal(run, tmp_path / "whole"), f"record {at}"
        assert main(["doctor", str(run), "--check"]) == 0
        if code == 0:
            break
    assert at > 5


def test_a_ledger_that_lacks_rows_of_a_finished_stage_is_refused_and_repaired(tmp_path, capsys):
    """As a stage command of an earlier version left it that was killed, or a copy of the ledger from before."""
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(scripted.config(run, keep_models="all")))
    assert main(["run", str(config), "--log", "quiet"]) == 0
    shutil.copytree(run, tmp_path / "whole")
    with sqlite3.connect(run / "ledger.sqlite") as db:
        (rows,) = db.execute("select count(*) from rollouts where iteration = 1").fetchone()
        db.execute("delete from rollouts where iteration = 1")
        db.execute("delete from evaluations where iteration = 2")
    db.close()
    capsys.readouterr()
    for command in (["run", str(config), "--log", "quiet"], ["curate", str(run), "--iteration", "1"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"{run / 'ledger.sqlite'}: iter_2/sample: {rows} of {rows} rows are lost" in said
        assert "iter_2/evaluate: 8 of 8 rows are lost" in said
        assert f"`gsi doctor {run}` repairs" in said
    assert main(["doctor", str(run)]) == 0
    assert main(["run", str(config), "--log", "quiet"]) == 0
    assert equal(run, tmp_path / "whole")


# --------------------------------------------------------------------------------------- signals


def started(tmp_path: Path, function: str, where: str = "engine", **env: str) -> subprocess.Popen:
    """A run in a process of its own, once `function` has said that it is being called (by making the file `at-work`)."""
    config = scripted.config(tmp_path / "run")
    config[where] = config[where] | {"function": f"{HERE / 'stubborn.py'}:{function}"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    child = subprocess.Popen(
        [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml"), "--log", "quiet"],
        env=ENV | {"AT_WORK": str(tmp_path / "at-work")},
        stderr=subprocess.PIPE,
        text=True,
    )
    while child.poll() is None and not (tmp_path / "at-work").exists():
        time.sleep(0.02)
    assert child.poll() is None, child.stderr.read() if child.stderr else ""
    return child


@pytest.mark.parametrize(("function", "where"), [("sleeps", "engine"), ("trains_long", "train")])
def test_sigint_in_sampling_and_in_training_ends_the_run_and_it_goes_on(tmp_path, calm, function, where):
    child = started(tmp_path, function, where)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert "interrupted" in err
    assert "The same command goes on from here" in err
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 0
    assert equal(tmp_path / "run", calm)


def test_a_second_sigint_ends_at_once_what_does_not_want_to_end(tmp_path, calm):
    child = started(tmp_path, "never_ends")
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None, "this one takes no notice of the first"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "stopped at once" in err
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 0
    assert equal(tmp_path / "run", calm)


@pytest.mark.torture
def test_one_sigterm_ends_within_ten_seconds_what_does_not_want_to_end(tmp_path):
    child = started(tmp_path, "never_ends")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "stopped at once" in err


# --------------------------------------------------------------------------------------- two processes


def test_a_second_process_is_told_who_holds_the_run_and_a_dead_one_holds_nothing(tmp_path, calm, capsys):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(scripted.config(tmp_path / "run")))
    holder = subprocess.Popen(
        [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml"), "--log", "quiet"], env=ENV | {"SCRIPTED_DELAY": "0.2"}
    )
    while not (tmp_path / "run" / "config.yaml").exists():  # the second of its files, which the commands below read
        assert holder.poll() is None
        time.sleep(0.02)
    for command in (
        ["run", str(tmp_path / "config.yaml")],
        ["doctor", str(tmp_path / "run")],
        ["curate", str(tmp_path / "run"), "--iteration", "1"],
    ):
        assert main(command) == 2
        assert f"in use by process {holder.pid} on {platform.node()} since 2" in capsys.readouterr().err
    holder.kill()
    holder.wait()
    assert f"process {holder.pid} " in (tmp_path / "run" / "run.lock").read_text(), "the lock file of the dead is still there"
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 0
    assert equal(tmp_path / "run", calm)


# --------------------------------------------------------------------------------------- disks


@contextmanager
def failing(at: int, code: int):
    """The `at`-th time that something is written through to disk (every file we write is, before it is renamed) fails."""
    real, count = os.fsync, 0

    def fsync(number: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(code, os.strerror(code), f"/proc/self/fd/{number}")
        real(number)

    os.fsync = fsync
    try:
        yield lambda: count
    finally:
        os.fsync = real


def faults_at_writes(tmp_path: Path, calm: Path, step: int, first: int) -> int:
    """Runs that fail at every `step`-th write and are started again. Returns the number of failures."""
    with failing(0, 0) as writes:
        gsi.run(scripted.config(tmp_path / "count"), reporter=QUIET)
        total = writes()
    for at in range(first, total + 1, step):
        code = (errno.ENOSPC, errno.EDQUOT, errno.EIO)[at % 3]
        run = tmp_path / f"run-{at}"
        with failing(at, code), pytest.raises(GsiError, match=os.strerror(code)) as e:
            gsi.run(scripted.config(run), reporter=QUIET)
        assert e.value.exit_code == 2
        assert "the same command goes on" in str(e.value)
        gsi.run(scripted.config(run), reporter=QUIET)
        assert equal(run, calm), f"write {at} of {total}"
        assert main(["doctor", str(run), "--check"]) == 0
        assert not list(run.rglob("*.part"))
    return len(range(first, total + 1, step))


def test_a_write_that_fails_stops_the_run_and_it_goes_on(tmp_path, calm):
    assert faults_at_writes(tmp_path, calm, 23, 5) > 2


@pytest.mark.torture
def test_every_write_may_fail(tmp_path, calm):
    print(faults_at_writes(tmp_path, calm, 1, 1), "writes failed, one in each run")


@contextmanager
def small_disk(path: Path, size: str):
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("size", ["64k", "300k", "600k"])
def test_a_full_disk_stops_the_run_which_goes_on_when_there_is_room(tmp_path, calm, capsys, size):
    with small_disk(tmp_path / "disk", size):
        run = tmp_path / "disk" / "run"
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(scripted.config(run)))
        command = ["run", str(tmp_path / "config.yaml"), "--log", "quiet"]
        assert main(command) == 2
        err = capsys.readouterr().err
        assert "full" in err or "No space left" in err, err
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        assert main(command) == 0, capsys.readouterr().err
        assert equal(run, calm)
        assert main(["doctor", str(run)]) == 0
        assert "all files are whole" in capsys.readouterr().out


def test_a_disk_that_becomes_read_only_stops_the_run_which_goes_on_when_it_can_be_written(tmp_path, calm, capsys):
    with small_disk(tmp_path / "disk", "64m"):
        run = tmp_path / "disk" / "run"
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(scripted.config(run)))
        gsi.run(scripted.config(run, iterations=1), reporter=QUIET)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 2
        err = capsys.readouterr().err
        assert str(run) in err
        assert "ead-only" in err
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "disk")], check=True)
        assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 0
        assert equal(run, calm)


# --------------------------------------------------------------------------------------- secrets


def test_a_secret_in_the_environment_is_in_no_file_of_a_run(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "TEACHER_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"canary-{name}-5e1f")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(scripted.config(tmp_path / "run", strategy="state_reset", keep_models="all")))
    done = subprocess.run(
        [sys.executable, "-m", "gsi", "run", str(tmp_path / "config.yaml")],
        env=ENV | os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert {"report.html", "ledger.sqlite", "run.json", "config.yaml", "metrics.jsonl"} <= {p.name for p in files}
    assert not [p for p in files if b"canary-" in p.read_bytes()]
    assert "canary-" not in done.stdout + done.stderr

"""A run's mirror: in a folder, and (marker cluster) in an S3-compatible server that the tests start."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import scripted
import yaml

from gsi import run as gsi_run
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.disks import network_filesystem
from gsi.mirror import Mirror
from gsi.progress import Reporter
from gsi.runfolder.damage import refuse_damage
from gsi.runfolder.state import read_state
from gsi.types import GsiError

QUIET = Reporter("quiet")
PYTHON_WITH_MOTO = os.environ.get("GSI_MOTO_PYTHON")


def run(output: Path, **changes) -> list[dict]:
    return gsi_run(load_config(scripted.config(output, **changes)), reporter=QUIET).metrics


def tokens(metrics: list[dict]) -> list:
    return [m.get("sample/tokens") for m in metrics]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def follow(folder: Path, url: str, tmp_path: Path) -> None:
    """A run with a mirror; broken off after iteration 1, it goes on in another folder, as on another machine."""
    expected = run(tmp_path / "plain")
    run(folder / "first", iterations=1, mirror=url)
    there = Mirror(url).state()
    assert "iter_1/evaluate" in there["stages"]
    shutil.rmtree(folder / "first")
    metrics = run(folder / "second", mirror=url)
    assert tokens(metrics) == tokens(expected)
    refuse_damage(folder / "second", read_state(folder / "second"))
    restored = tmp_path / "third"
    Mirror(url).restore(restored)
    refuse_damage(restored, read_state(restored))
    ours, theirs = tree(folder / "second"), tree(restored)
    assert {n for n in ours if n.endswith(("parquet", "json", "yaml", "jsonl")) and n != "run.json"} <= theirs.keys()
    assert theirs["iter_2/train.parquet"] == ours["iter_2/train.parquet"]
    models = {n.split("/")[0] for n in theirs if "/model/" in n}
    assert models == {n.split("/")[0] for n in ours if "/model/" in n}, "models that are not kept are not kept there either"


def test_a_run_goes_on_from_its_mirror(tmp_path, capsys):
    follow(tmp_path, str(tmp_path / "mirror"), tmp_path)
    assert "second is restored from" in capsys.readouterr().err
    assert not list((tmp_path / "mirror").rglob("*.part"))


def test_a_probe_leaves_no_mirror_for_the_run_to_go_on_from(tmp_path, capsys):
    settings = scripted.config(tmp_path / "run", iterations=1, mirror=str(tmp_path / "mirror"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["run", str(tmp_path / "config.yaml"), "--dry-run", "--probe", "3"]) == 0
    assert "probe: 3 questions" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 0
    assert "restored" not in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        assert db.execute("select count(distinct query_id) from rollouts").fetchone() == (32,)


def test_a_probe_of_a_run_at_work_leaves_its_mirror_as_it_is(tmp_path):
    settings = scripted.config(tmp_path / "run", iterations=1, mirror=str(tmp_path / "mirror"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    run(tmp_path / "run", iterations=1, mirror=str(tmp_path / "mirror"))
    before = tree(tmp_path / "mirror")
    assert main(["run", str(tmp_path / "config.yaml"), "iterations=3", "--dry-run", "--probe", "3"]) == 0
    assert tree(tmp_path / "mirror") == before


def test_another_run_does_not_overwrite_a_mirror(tmp_path):
    url = (tmp_path / "mirror").as_uri()
    run(tmp_path / "one", iterations=1, mirror=url)
    before = tree(tmp_path / "mirror")
    run(tmp_path / "two", iterations=1)
    with pytest.raises(GsiError, match="holds another run"):
        run(tmp_path / "two", iterations=1, mirror=url)
    assert tree(tmp_path / "mirror") == before


@pytest.mark.parametrize("place", ["folder", "run"])
def test_a_place_that_holds_something_else_is_never_written_to(tmp_path, place):
    other = tmp_path / "other"
    if place == "run":
        run(other, iterations=1)
    else:
        (other / "sub").mkdir(parents=True)
        (other / "sub" / "mine.txt").write_text("mine")
    before = tree(other)
    with pytest.raises(GsiError, match=r"mirror: .*other is not empty and no mirror \(\S+ is in it\); name a place of its own"):
        run(tmp_path / "one", iterations=1, mirror=str(other))
    assert tree(other) == before


def test_no_place_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="mirror: "):  # '' would be the working directory
        run(tmp_path / "one", mirror="")


def test_a_killed_run_leaves_a_mirror_that_can_be_resumed(tmp_path, monkeypatch):
    """Killed at some moment of its second iteration: what was mirrored last is whole."""
    monkeypatch.setenv("SCRIPTED_DELAY", "0.005")
    config = scripted.config(tmp_path / "run", mirror=str(tmp_path / "mirror"))
    code = f"from gsi import run; from gsi.config import load_config; run(load_config({config!r}))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    p = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
    while "iter_1/train" not in (Mirror(config["mirror"]).state() or {"stages": ""})["stages"]:
        assert p.poll() is None
        time.sleep(0.02)
    p.send_signal(signal.SIGKILL)
    p.wait()
    monkeypatch.setenv("SCRIPTED_DELAY", "0")
    expected = run(tmp_path / "plain")
    assert tokens(run(tmp_path / "other", mirror=config["mirror"])) == tokens(expected)


def test_a_mirror_that_fails_is_said_before_and_at_the_end(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(GsiError, match=r"mirror: .*file/x cannot be"):
        run(tmp_path / "run", mirror=str(tmp_path / "file" / "x"))
    with pytest.raises(GsiError, match="mirror: 'ftp://x/y' is no folder or URL"):
        run(tmp_path / "run", mirror="ftp://x/y")
    real, calls = Mirror._upload, []

    def failing(self, path, name):
        calls.append(name)
        if len(calls) > 3:
            raise OSError("the disk over there is full")
        real(self, path, name)

    monkeypatch.setattr(Mirror, "_upload", failing)
    with pytest.raises(GsiError, match=r"is whole, its mirror is not: .*over there is full"):
        run(tmp_path / "run", mirror=str(tmp_path / "mirror"))
    assert "the run goes on" in capsys.readouterr().err
    monkeypatch.undo()
    run(tmp_path / "run", mirror=str(tmp_path / "mirror"))
    assert "iter_2/evaluate" in Mirror(str(tmp_path / "mirror")).state()["stages"]


def test_models_are_fetched_once_per_content(tmp_path):
    url = str(tmp_path / "mirror")
    run(tmp_path / "run", mirror=url, keep_models="all")
    first = Mirror(url).fetch("iter_1/model", tmp_path / "cache")
    assert tree(first) == tree(tmp_path / "run" / "iter_1" / "model")
    assert Mirror(url).fetch("iter_1/model", tmp_path / "cache") == first
    assert Mirror(url).fetch("iter_2/model", tmp_path / "cache") != first
    with pytest.raises(GsiError, match="has no iter_9/model"):
        Mirror(url).fetch("iter_9/model", tmp_path / "cache")


def test_network_file_systems_are_known(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nhost:/x /data nfs4 rw 0 0\n/dev/b /data/local ext4 rw 0 0\ns3 /with\\040blank fuse.s3fs rw 0 0\n"
    )
    found = {
        p: network_filesystem(Path(p), mounts) for p in ("/home/me", "/data/runs/1", "/data/local/run", "/with blank/run", "/database")
    }
    assert found == {"/home/me": None, "/data/runs/1": "nfs4", "/data/local/run": None, "/with blank/run": "fuse.s3fs", "/database": None}
    assert network_filesystem(tmp_path, tmp_path / "none") is None
    monkeypatch.setattr("gsi.runfolder.opening.network_filesystem", lambda path: "nfs4")
    with pytest.raises(GsiError, match=r"output_dir: .* network file system \(nfs4\).* set `mirror:`"):
        run(tmp_path / "run")


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A bucket of an S3-compatible server, as a URL."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = (tmp_path / "moto.log").open("w")
    server = subprocess.Popen([PYTHON_WITH_MOTO, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(key, value)
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"), timeout=5)
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield f"s3://bucket/runs/one?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    server.kill()
    server.wait()


@pytest.mark.cluster
@pytest.mark.skipif(not PYTHON_WITH_MOTO, reason="GSI_MOTO_PYTHON names no interpreter that has moto (make test-cluster)")
def test_a_run_goes_on_from_an_object_store(s3, tmp_path):
    follow(tmp_path, s3, tmp_path)
    with pytest.raises(GsiError, match=r"mirror: .*nosuch.* cannot be"):
        run(tmp_path / "other", mirror=s3.replace("bucket", "nosuch"))

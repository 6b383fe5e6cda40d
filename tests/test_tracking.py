"""One run of the tracker for a whole run of ours: two iterations, a kill, the loop's figures beside training's. Offline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scripted
import yaml
from test_training import job, rows

from gsi.train import tracking
from gsi.types import GsiError

pytestmark = pytest.mark.slow


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    found: dict[str, list[tuple[int, float]]] = {}
    events = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    assert list(events.Runs()) == ["."], "one run"
    for tag in events.Runs()["."]["scalars"]:
        found[tag] = sorted((e.step, e.value) for e in events.Scalars(".", tag))
    return found


def test_tensorboard_holds_training_and_loop_of_all_iterations_in_one_run(tmp_path):
    """The loop with a scripted trainer that logs as training does; resumed in between."""
    pytest.importorskip("tensorboard")
    import gsi
    from gsi.progress import Reporter

    config = scripted.config(tmp_path / "run", report_to="tensorboard")
    gsi.run(config | {"iterations": 1}, reporter=Reporter("quiet"))
    gsi.run(config, reporter=Reporter("quiet"))
    result = gsi.run(config, reporter=Reporter("quiet"))
    found = scalars(tmp_path / "run" / "tracking")
    assert [v for _, v in found["train/tail/coverage"]] == pytest.approx([line["tail/coverage"] for line in result.metrics[1:]])
    steps = [int(line.get("train/steps", 0)) for line in result.metrics]
    assert [s for s, _ in found["train/tail/coverage"]] == [steps[1], steps[1] + steps[2]]
    assert [v for _, v in found["train/cost/flops"]] == pytest.approx([line["cost/flops"] for line in result.metrics])
    assert {"train/tail/hard_share", "train/sample/tokens", "train/tail/share/level_1"} <= set(found)
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["tracking"]["tensorboard"]["logged"] == [0, 1, 2]


def test_a_fork_is_a_run_of_its_own_and_what_is_redone_is_logged_again(tmp_path):
    pytest.importorskip("tensorboard")
    import gsi
    from gsi.config import load_config
    from gsi.progress import Reporter
    from gsi.redo import stage

    quiet = Reporter("quiet")
    config = scripted.config(tmp_path / "run", report_to="tensorboard", keep_models="all")
    lines = gsi.run(config, reporter=quiet).metrics
    forked = gsi.run(config | {"curate": {"cap": 1}}, fork="forked", reporter=quiet)
    found = scalars(forked.path / "tracking")
    assert [v for _, v in found["train/tail/coverage"]] == pytest.approx([line["tail/coverage"] for line in forked.metrics[1:]])
    assert [v for _, v in found["train/cost/flops"]] == pytest.approx([line["cost/flops"] for line in forked.metrics])
    kept = [json.loads((path / "run.json").read_text())["tracking"]["tensorboard"] for path in (tmp_path / "run", forked.path)]
    assert kept[0]["id"] != kept[1]["id"]
    assert len(scalars(tmp_path / "run" / "tracking")["train/tail/coverage"]) == 2, "nothing of the fork in the source's run"

    stage(load_config(config), "curate", 2, quiet)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["tracking"]["tensorboard"] == kept[0] | {"logged": [0, 1]}
    gsi.run(config, reporter=quiet)
    found = scalars(tmp_path / "run" / "tracking")
    assert [v for _, v in found["train/tail/coverage"]] == pytest.approx([lines[n]["tail/coverage"] for n in (1, 2, 2)])
    stage(load_config(config), "evaluate", 1, quiet)
    gsi.run(config, reporter=quiet)
    found = scalars(tmp_path / "run" / "tracking")
    assert [v for _, v in found["train/tail/coverage"]] == pytest.approx([lines[n]["tail/coverage"] for n in (1, 1, 2, 2)])


def test_training_figures_go_on_from_the_steps_before(tmp_path, tmp_path_factory):
    pytest.importorskip("tensorboard")
    import models

    from gsi.train import sft

    model = models.build(tmp_path / "model")
    for n, offset in ((1, 0), (2, 4)):
        made = job(tmp_path / f"iter_{n}", rows(24), model)
        made.settings["tracking"] = tracking.settings("tensorboard", tmp_path, "abcd", offset)
        assert sft.train(made)["steps"] == 4
    tracking.log(tracking.settings("tensorboard", tmp_path, "abcd", 8), {"tail/coverage": 0.5, "iteration": 2}, tmp_path / "scratch")
    found = scalars(tmp_path / "tracking")
    assert [s for s, _ in found["train/loss"]] == [4, 8]
    assert {"train/learning_rate", "train/grad_norm", "train/tokens_per_s"} <= set(found)
    assert found["train/tail/coverage"] == [(8, 0.5)]


TRACKIO = """
import sys
sys.path[:0] = [{here!r}]
from pathlib import Path
import models
from test_training import job, rows
from gsi.train import sft, tracking
folder = Path(sys.argv[1])
n, offset = int(sys.argv[2]), int(sys.argv[3])
made = job(folder / f"iter_{{n}}", rows(24), folder / "model")
made.settings["tracking"] = tracking.settings("trackio", folder / "myrun", "abcd", offset)
sft.train(made)
tracking.log(tracking.settings("trackio", folder / "myrun", "abcd", offset + 4), {{"tail/coverage": n / 10}}, folder / "scratch")
"""


@pytest.mark.training
def test_trackio_holds_both_iterations_in_one_run_without_a_network(tmp_path):
    pytest.importorskip("trackio")
    import models

    models.build(tmp_path / "model")
    env = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "TRACKIO_LOGBOOK_AUTONOTE": "0"}
    for n, offset in ((1, 0), (2, 4)):
        command = [sys.executable, "-c", TRACKIO.format(here=str(Path(__file__).parent)), str(tmp_path), str(n), str(offset)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    import sqlite3

    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as db:
        logs = [(name, json.loads(m)) for name, m in db.execute("select run_name, metrics from metrics order by id")]
    assert {name for name, _ in logs} == {"myrun-abcd"}
    assert [m["train/global_step"] for _, m in logs if "train/loss" in m] == [4, 8]
    assert [m["train/tail/coverage"] for _, m in logs if "train/tail/coverage" in m] == [0.1, 0.2]


def test_a_tracker_that_is_not_installed_is_refused_at_the_start(tmp_path, capsys, monkeypatch):
    from gsi.cli import main

    monkeypatch.setitem(tracking.PACKAGES, "mlflow", "no_such_package")
    with pytest.raises(GsiError, match="mlflow needs the package"):
        tracking.check("mlflow")
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(scripted.config(tmp_path / "run", report_to="mlflow")))
    assert main(["run", str(path), "--log", "quiet"]) == 2
    assert "report_to: mlflow needs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

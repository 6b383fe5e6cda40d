"""`gsi doctor RUN`: checks every file of a run, and repairs what is damaged in the way that keeps the most.

What a repair gives up is forgotten in run.json, so that `gsi run` makes it again: missing rollouts are drawn with their old seeds where
their model is kept, a training set is curated again from the ledger, a model trained again. What was damaged stays in the folder,
as NAME.damaged-TIME.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gsi import checksums, stages
from gsi.config import ConfigError, load_config
from gsi.files import write_text
from gsi.ledger import Ledger, unborn
from gsi.loop import open_run
from gsi.metrics_file import write_metrics
from gsi.progress import Reporter
from gsi.runfolder.damage import lost_rows, remove_leftovers
from gsi.runfolder.lock import hold_lock
from gsi.runfolder.models import train_again
from gsi.runfolder.state import BACKUP, config_text, read_state, sums_of, write_state
from gsi.salvage import salvage
from gsi.types import GsiError

Say = Callable[[str], None]


def examine(path: Path, repair: bool = True, say: Say = print) -> tuple[int, int]:
    """(problems found, problems left). Raises GsiError for a folder that is in use or no run."""
    if not any((path / name).exists() for name in ("run.json", BACKUP, "config.yaml")):
        raise GsiError(f"{path}: no run folder (neither run.json nor config.yaml)")
    lock = hold_lock(path)
    try:
        doctor = _Doctor(path, repair, say)
        doctor.run()
    finally:
        lock.close()
    doctor.metrics()  # opens the run as `gsi run` does
    return doctor.found, doctor.left


class _Doctor:
    def __init__(self, path: Path, repair: bool, say: Say):
        self.path, self.repair, self.say = path, repair, say
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        stamps = (now if not i else f"{now}-{i}" for i in itertools.count())
        self.stamp = next(s for s in stamps if not list(path.rglob(f"*.damaged-{s}")))  # a clock that went back overwrites nothing
        self.found = self.left = 0

    def run(self) -> None:
        state = self._state()
        if state is not None:
            self._config(state)
            if self.repair:
                remove_leftovers(self.path)
            self._ledger(state)
            self._rows(state)
            self._files(state)
            if self.repair and self.found:
                write_state(self.path, state)

    def _problem(self, text: str, repaired: str | None) -> None:
        """Says a problem and what was done; None = nothing can be done here."""
        self.found += 1
        self.left += repaired is None or not self.repair
        self.say(text if not self.repair else f"{text}\n  {'-> ' + repaired if repaired else 'cannot be repaired here'}")

    def _aside(self, name: str) -> None:
        if self.repair and (self.path / name).exists():
            os.replace(self.path / name, self.path / f"{name}.damaged-{self.stamp}")

    # ----------------------------------------------------------------------------------- run.json and config.yaml

    def _state(self) -> dict[str, Any] | None:
        states: dict[str, dict[str, Any]] = {}
        wrong: dict[str, str] = {}
        for name in ("run.json", BACKUP):
            try:
                states[name] = read_state(self.path, name)
            except GsiError as e:
                wrong[name] = str(e).split(";")[0]
        if "run.json" in states:
            if BACKUP in wrong and "checksum" in json.loads((self.path / "run.json").read_text(encoding="utf-8")):
                self._problem(wrong[BACKUP], "written again from run.json")
            return states["run.json"]
        if BACKUP in states:
            self._problem(wrong["run.json"], "its copy put back; a stage that ended since is done again")
            self._aside("run.json")
            return states[BACKUP]
        self._problem(f"{wrong['run.json']}; nor can its copy be read", None)
        return None

    def _config(self, state: dict[str, Any]) -> None:
        path, kept = self.path / "config.yaml", state.get("config")
        try:
            there = yaml.safe_load(path.read_text(encoding="utf-8"))
            if kept is None:
                load_config(path)
                return
        except (OSError, ValueError, yaml.YAMLError, ConfigError) as e:
            self._problem(f"{path}: cannot be read: {e}", "written again from run.json" if kept else None)
        else:
            if there == kept:
                return
            self._problem(f"{path}: is not what run.json says was written", "written again from run.json")
        if self.repair and kept:
            self._aside("config.yaml")
            write_text(path, config_text(kept))

    # ----------------------------------------------------------------------------------- the ledger

    def _ledger(self, state: dict[str, Any]) -> None:
        path = self.path / "ledger.sqlite"
        if not path.exists() or unborn(path):
            if not any(info.get("ledger_rows") for info in state["stages"].values()):
                return
            problems = [f"{path}: {'holds no tables' if path.exists() else 'is missing'}"]
        else:
            try:
                ledger = Ledger(path, read_only=True)
                problems = ledger.problems()
                ledger.close()
            except GsiError as e:
                if "ledger version" in str(e):
                    raise
                problems = [str(e)]
        if not problems:
            return
        for text in problems[:10]:
            self.say(text)
        if not self.repair:
            self._problem(f"{path}: {len(problems)} problems", None)
            return
        kept, bad, aside = salvage(path, self.stamp)
        rows = ", ".join(f"{kept[t]:,} {t}" + (f" ({bad[t]} that changed left out)" if bad[t] else "") for t in kept)
        self._problem(
            f"{path}: damaged", f"every whole row kept in a new file: {rows}" + (f"; the old one is {aside.name}" if aside else "")
        )

    def _rows(self, state: dict[str, Any]) -> None:
        """Stages that lost rows are open again, so that `gsi run` draws what is missing, where the model that drew it is kept."""
        if not (self.path / "ledger.sqlite").exists() or unborn(self.path / "ledger.sqlite"):
            return
        try:
            ledger = Ledger(self.path / "ledger.sqlite", read_only=True)
        except GsiError:
            return  # said already
        try:
            for key, (lost, all_) in lost_rows(ledger, state).items():
                self._lost(state, ledger, key, lost, all_)
        except GsiError:
            return  # damaged, said already, and not repaired
        finally:
            ledger.close()

    def _lost(self, state: dict[str, Any], ledger: Ledger, key: str, lost: int, all_: int) -> None:
        text, again = f"{key}: {lost} of {all_} rows are lost", "the same `gsi run` draws them again, and only them"
        if key == "strata":
            self._problem(text, again)
            if self.repair:
                state.pop(key)
                if "0" not in state["models"]:  # a warm start's, whose seed is its own
                    train_again(state, 0)
            return
        if key == "test":
            models = [n for n, rows in state["stages"][key]["ledger_rows"].items() if rows]
        else:
            n, stage = int(key.split("/")[0][5:]), key.split("/")[1]
            models = [str(n - 1 if stage == "sample" else n)]
        gone = [f"iter_{n}" for n in models if n not in state["models"]]
        self._problem(text, f"{', '.join(gone)} is not kept, so the run goes on without" if gone else again)
        if self.repair and gone:
            state.setdefault("lost", []).append({"at": self.stamp, "stage": key, "rows": lost})
            state["stages"][key]["ledger_rows"] = all_ - lost if key != "test" else {n: ledger.count(int(n), "test") for n in models}
        elif self.repair:
            state["stages"].pop(key)

    # ----------------------------------------------------------------------------------- files of stages

    def _files(self, state: dict[str, Any]) -> None:
        bad = checksums.compare(self.path, sums_of(state))
        broken = {text[len(str(self.path)) + 1 :].split(": ")[0]: text for text in bad}
        for name, text in broken.items():
            n, file = int(name.split("/")[0][5:]), name.split("/", 1)[1]
            if file.startswith("model/"):
                *before, _ = train_again(state, n)
                also = f", iter_{before[0]} to iter_{before[-1]} before it" if before else ""
                self._problem(text, f"iter_{n}/model is trained again by the same `gsi run`{also}")
            elif file == "eval.json":
                self._problem(text, self._evaluate_again(state, n))
            elif file == "perplexity.json":
                self._problem(text, "removed; it is measured when the iteration is trained again")
                state["stages"].get(f"iter_{n}/train", {"files": {}})["files"].pop(name, None)
            else:
                used = f"iter_{n}/train" in state["stages"]
                self._problem(text, "chosen again from the ledger" + (f"; iter_{n}/model, trained on what it was, stays" if used else ""))
                state["stages"].pop(f"iter_{n}/curate" if n else "iter_0/train", None)
            if file != "eval.json":
                self._aside(name)

    def _evaluate_again(self, state: dict[str, Any], n: int) -> str:
        if not self.repair:
            return ""
        config, ledger = load_config(self.path / "config.yaml"), Ledger(self.path / "ledger.sqlite", read_only=True)
        try:
            overlap = self._overlap()
            results = {s: stages.results_of(ledger, config, n, s, overlap) for s in ("validation", "test") if ledger.count(n, s)}
        finally:
            ledger.close()
        model = state["models"].get(str(n), f"iter_{n}/model")
        self._aside(f"iter_{n}/eval.json")
        file = self.path / f"iter_{n}" / "eval.json"
        write_text(file, json.dumps({"iteration": n, "model": model} | results, indent=1))
        state["stages"][f"iter_{n}/evaluate"]["files"] = checksums.seal(self.path, [file])
        return "computed again from the ledger"

    def _overlap(self) -> Counter[tuple[str, str]]:
        """Test questions that are also training questions, by task and kind, as the run listed them."""
        path = self.path / "overlap.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            return Counter((row["task"], row["kind"]) for row in map(json.loads, lines))
        except (ValueError, TypeError, KeyError) as e:
            self._problem(f"{path}: cannot be read ({e}), so figures of test sets lack what is also trained on", None)
            return Counter()

    # ----------------------------------------------------------------------------------- metrics.jsonl

    def metrics(self) -> None:
        """metrics.jsonl holds nothing of its own: it is made again and compared. With `repair` off, its lines are only read."""
        path = self.path / "metrics.jsonl"
        try:
            before = path.read_text(encoding="utf-8") if path.exists() else None
            wrong = None if all(isinstance(json.loads(line), dict) for line in (before or "").splitlines()) else "a line is no mapping"
        except ValueError as e:
            before, wrong = "", str(e)
        if self.repair and not self.left:
            try:
                config = load_config(self.path / "config.yaml").model_copy(update={"output_dir": str(self.path)})
                with open_run(config, reporter=Reporter("quiet")) as ctx:
                    write_metrics(ctx)
            except GsiError as e:
                self.say(f"{path}: could not be made again to compare it: {e}")
            else:
                if before is not None and path.read_text(encoding="utf-8") != before:
                    self._problem(f"{path}: {wrong or 'is not what the run says'}", "made again from the run")
                return
        if wrong:
            self._problem(f"{path}: {wrong}", None)

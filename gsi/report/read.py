"""Reads run folders for reports. Uses nothing of a run but its files, and says what is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gsi.types import GsiError


@dataclass(frozen=True)
class RunView:
    """A run folder as its files tell it."""

    path: Path
    config: dict[str, Any]
    state: dict[str, Any]
    metrics: list[dict[str, Any]]  # one line per iteration, in order
    evals: dict[int, dict[str, Any]]  # iteration -> eval.json
    missing: list[str]  # files that are absent or unreadable, with the reason

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def strategy(self) -> str:
        return str(self.config.get("strategy", "?"))

    def final(self) -> dict[str, Any]:
        """The last line of metrics, empty if there is none."""
        return self.metrics[-1] if self.metrics else {}

    def total(self, key: str) -> float:
        """Sum of a figure over the iterations."""
        return sum(line.get(key) or 0 for line in self.metrics)


def read_run(path: Path) -> RunView:
    """Reads what there is. Raises GsiError only where there is no run at all."""
    if not (path / "run.json").exists() and not (path / "config.yaml").exists():
        raise GsiError(f"{path}: no run folder (neither run.json nor config.yaml)")
    missing: list[str] = []

    def load(name: str, parse: Any, kind: type, default: Any) -> Any:
        try:
            value = parse((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as e:
            missing.append(f"{name}: {e.strerror if isinstance(e, OSError) else e}")
            return default
        if not isinstance(value, kind):
            missing.append(f"{name}: holds {type(value).__name__}, not a {kind.__name__}")
            return default
        return value

    def lines(text: str) -> list[dict[str, Any]]:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError as e:
                missing.append(f"metrics.jsonl line {number}: {e}")
                continue
            if isinstance(row, dict) and isinstance(row.get("iteration"), int):
                found.append(row)
            else:
                missing.append(f"metrics.jsonl line {number}: no mapping with an iteration")
        return found

    metrics = load("metrics.jsonl", lines, list, [])
    folders = [p.parent.name for p in sorted(path.glob("iter_*/eval.json")) if p.parent.name[5:].isdigit()]
    evals = {int(name[5:]): load(f"{name}/eval.json", json.loads, dict, {}) for name in folders}
    return RunView(path, load("config.yaml", yaml.safe_load, dict, {}), load("run.json", json.loads, dict, {}), metrics, evals, missing)

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

    def load(name: str, parse: Any, default: Any) -> Any:
        try:
            return parse((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as e:
            missing.append(f"{name}: {e.strerror if isinstance(e, OSError) else e}")
            return default

    lines = load("metrics.jsonl", lambda text: [json.loads(line) for line in text.splitlines() if line.strip()], [])
    evals = {int(p.parent.name[5:]): load(str(p.relative_to(path)), json.loads, {}) for p in sorted(path.glob("iter_*/eval.json"))}
    return RunView(path, load("config.yaml", yaml.safe_load, {}), load("run.json", json.loads, {}), lines, evals, missing)

"""Reads run folders for reports. Uses nothing of a run but its files, and says what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gsi.types import GsiError

STAGES = ("sample", "curate", "train", "evaluate")  # of one iteration; the first has the last two


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

    def stages(self) -> tuple[list[str], list[str]]:
        """(all stages of the run in order, those of them that are left), as run.json names them."""
        order = [f"iter_{n}/{s}" for n in range(int(finite(self.config.get("iterations")) or 0) + 1) for s in (STAGES if n else STAGES[2:])]
        order += ["test"] if dig(self.config, "evaluate", "tasks") else []
        return order, [s for s in order if s not in (self.state.get("stages") or {})]

    def final(self) -> dict[str, Any]:
        """The last line of metrics, empty if there is none."""
        return self.metrics[-1] if self.metrics else {}

    def total(self, key: str) -> float:
        """Sum of a figure over the iterations."""
        return sum(finite(line.get(key)) or 0 for line in self.metrics)

    def measured(self, key: str) -> float | None:
        """The sum, or None where no iteration has the figure: not measured is not zero."""
        return self.total(key) if any(finite(line.get(key)) is not None for line in self.metrics) else None


def read_run(path: Path) -> RunView:
    """Reads what there is. Raises GsiError only where there is no run at all."""
    if not (path / "run.json").exists() and not (path / "config.yaml").exists():
        raise GsiError(f"{path}: no run folder (neither run.json nor config.yaml)")
    missing: list[str] = []
    state = _load(path, "run.json", json.loads, missing)
    metrics = sorted(_lines(path, missing), key=lambda line: line["iteration"])
    evals: dict[int, dict[str, Any]] = {}
    for name in sorted(p.parent.name for p in path.glob("iter_*/eval.json") if p.parent.name[5:].isdigit()):
        found = _load(path, f"{name}/eval.json", json.loads, missing)
        kept = {split: {t: r for t, r in (dig(found, split) or {}).items() if _is_result(r)} for split in ("validation", "test")}
        if any(len(results) < len(found[split]) for split, results in kept.items() if dig(found, split)):
            missing.append(f"{name}/eval.json: not the results of an evaluation")
        evals[int(name[5:])] = kept
    for stage in dig(state, "stages") or {}:
        if stage.endswith("/evaluate") and stage[5:-9].isdigit() and int(stage[5:-9]) not in evals:
            missing.append(f"{stage.split('/')[0]}/eval.json: not there, though its stage is done")
    if state and "stages" not in state:
        missing.append("run.json: it does not say which stages are done")
    return RunView(path, _load(path, "config.yaml", yaml.safe_load, missing), state, metrics, evals, missing)


def _load(path: Path, name: str, parse: Any, missing: list[str]) -> dict[str, Any]:
    try:
        value = parse((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as e:
        missing.append(f"{name}: {e.strerror if isinstance(e, OSError) else e}")
        return {}
    if not isinstance(value, dict):
        missing.append(f"{name}: holds no mapping")
        return {}
    return value


def _lines(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that can be read; a torn one loses only itself. Figures that are no number become None."""
    try:
        text = (path / "metrics.jsonl").read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        missing.append(f"metrics.jsonl: {e.strerror if isinstance(e, OSError) else e}")
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as e:
            missing.append(f"metrics.jsonl line {number}: {e}")
            continue
        if isinstance(dig(row, "iteration"), int):
            found.append({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()})
        else:
            missing.append(f"metrics.jsonl line {number}: no mapping with an iteration")
    return found


def results(run: RunView) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """(iteration, split, task, result) of every evaluation."""
    for n, splits in sorted(run.evals.items()):
        for split, found in splits.items():
            for task, result in sorted(found.items()):
                yield n, split, task, result


def by_level(name: str, line: dict[str, Any]) -> dict[int, float]:
    """The figures `NAME/level_N` of a line of metrics."""
    prefix = f"{name}/level_"
    return {
        int(k[len(prefix) :]): v for k, v in line.items() if k.startswith(prefix) and k[len(prefix) :].isdigit() and finite(v) is not None
    }


def finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_result(r: Any) -> bool:
    counts = dig(r, "levels")
    return (
        all(finite(dig(r, key)) is not None for key in ("n", "pass@1"))
        and isinstance(counts, dict)
        and all(level.isdigit() and finite(dig(c, "right")) is not None and (finite(dig(c, "n")) or 0) > 0 for level, c in counts.items())
    )

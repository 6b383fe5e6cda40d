"""Reads run folders for reports. Uses nothing of a run but its files, and says what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gsi.types import GsiError

STAGES = ("sample", "curate", "train", "evaluate")  # of one iteration; the first has the last two
STATE: dict[str, type] = dict.fromkeys(("stages", "versions", "clock", "alarms", "hard_levels"), dict)
CONFIG: dict[str, type] = {"tasks": list, "sample": dict, "evaluate": dict, "monitor": dict}


@dataclass(frozen=True)
class RunView:
    """A run folder as its files tell it."""

    path: Path
    config: dict[str, Any]
    state: dict[str, Any]
    metrics: list[dict[str, Any]]  # one line per iteration, in order
    evals: dict[int, dict[str, Any]]  # iteration -> eval.json
    missing: list[str]  # files that are absent or unreadable, with the reason
    monitor: dict[int, dict[str, Any]]  # iteration -> what the tail monitor compared

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def strategy(self) -> str:
        return str(self.config.get("strategy", "?"))

    @property
    def iterations(self) -> int:
        """As the config has it; at most so many as a page could show."""
        return int(min(max(finite(self.config.get("iterations")) or 0, 0), 10_000))

    @property
    def hard_levels(self) -> dict[str, list[int]]:
        """Task -> the levels it declares hard."""
        return {task: levels for task, levels in mapping(self.state.get("hard_levels")).items() if isinstance(levels, list)}

    def stages(self) -> tuple[list[str], list[str]]:
        """(all stages of the run in order, those of them that are left), as run.json names them."""
        order = [f"iter_{n}/{s}" for n in range(self.iterations + 1) for s in (STAGES if n else STAGES[2:])]
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
    state = _shaped(_load(path, "run.json", _json, missing), "run.json", STATE, missing)
    config = _shaped(_load(path, "config.yaml", yaml.safe_load, missing), "config.yaml", CONFIG, missing)
    metrics = sorted(_lines(path, missing), key=lambda line: line["iteration"])
    evals: dict[int, dict[str, Any]] = {}
    for name in sorted(p.parent.name for p in path.glob("iter_*/eval.json") if whole(p.parent.name[5:])):
        found = _load(path, f"{name}/eval.json", _json, missing)
        given = {split: dig(found, split) for split in ("validation", "test")}
        kept = {split: {t: r for t, r in mapping(of).items() if _is_result(r)} for split, of in given.items()}
        if any(not isinstance(of, dict) or len(kept[split]) < len(of) for split, of in given.items() if of):
            missing.append(f"{name}/eval.json: not the results of an evaluation")
        evals[int(name[5:])] = kept
    for stage in mapping(dig(state, "stages")):
        if stage.endswith("/evaluate") and whole(stage[5:-9]) and int(stage[5:-9]) not in evals:
            missing.append(f"{stage.split('/')[0]}/eval.json: not there, though its stage is done")
    if state and "stages" not in state:
        missing.append("run.json: it does not say which stages are done")
    chosen = [p.parent.name for p in path.glob("iter_*/monitor.json") if not state or dig(state, "stages", f"{p.parent.name}/curate")]
    watched = sorted(int(name[5:]) for name in chosen if whole(name[5:]))
    monitor = {n: _load(path, f"iter_{n}/monitor.json", _json, missing) for n in watched}
    return RunView(path, config, state, metrics, evals, missing, monitor)


def _load(path: Path, name: str, parse: Any, missing: list[str]) -> dict[str, Any]:
    try:
        value = parse((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        missing.append(f"{name}: {e.strerror if isinstance(e, OSError) else e}")
        return {}
    if not isinstance(value, dict):
        missing.append(f"{name}: holds no mapping")
        return {}
    return value


def _json(text: str) -> Any:
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))  # longer ones cannot be drawn


def _shaped(found: dict[str, Any], name: str, shapes: dict[str, type], missing: list[str]) -> dict[str, Any]:
    """Without the entries that are not what they have to be; those are named."""
    for key, shape in shapes.items():
        if found.get(key) is not None and not isinstance(found[key], shape):
            missing.append(f"{name}: {key} is no {'list' if shape is list else 'mapping'}")
            found = {k: v for k, v in found.items() if k != key}
    return found


def _lines(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that can be read; a torn one loses only itself. Figures that are no number, or none that can be drawn, become None."""
    try:
        text = (path / "metrics.jsonl").read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        missing.append(f"metrics.jsonl: {e.strerror if isinstance(e, OSError) else e}")
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = _json(line)
        except (ValueError, RecursionError) as e:
            missing.append(f"metrics.jsonl line {number}: {e}")
            continue
        n = dig(row, "iteration")
        if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1_000_000:
            found.append({k: finite(v) for k, v in row.items()})
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
    return {int(k[len(prefix) :]): v for k, v in line.items() if k.startswith(prefix) and whole(k[len(prefix) :]) and finite(v) is not None}


def finite(value: Any) -> float | None:
    """The value if it is a number that can be drawn."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 else None


def whole(text: str) -> bool:
    """Whether it is the number of an iteration or a level."""
    return text.isascii() and text.isdecimal() and len(text) < 7


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_result(r: Any) -> bool:
    counts = dig(r, "levels")
    return (
        0 <= (finite(dig(r, "pass@1")) or 0) <= 1
        and (finite(dig(r, "n")) or 0) >= 0
        and all(finite(dig(r, key)) is not None for key in ("n", "pass@1"))
        and isinstance(counts, dict)
        and all(whole(level) and finite(dig(c, "right")) is not None and (finite(dig(c, "n")) or 0) > 0 for level, c in counts.items())
    )

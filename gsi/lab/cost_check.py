"""`make cost-check`: what `--dry-run --probe` estimates, against what runs of the lab then took.

    python -m gsi.lab.cost_check [--output runs/cost-check]

The rates and the start-up time of this machine come from one run (vanilla, one iteration); the runs that are estimated differ
in strategy, pool, size and iterations. Tokens, trained tokens and time must be within 30 % (the middle of an interval counts). Time
is processor time of the run and its training processes, everything included: on a shared machine the clock measures the others.
About three minutes of one core, once the base is built. What is finished stands in OUTPUT/results.json and is not done again.
Memory is not checked here, where it is nearly all Python and torch: tests/test_recipes.py counts tensors.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from gsi import build, cost
from gsi.config import Config, load_config
from gsi.cost import Load, Range
from gsi.files import write_text
from gsi.lab.command import end
from gsi.loop import run
from gsi.probe import probe
from gsi.progress import Reporter, table_console
from gsi.queries import load_data
from gsi.report.read import read_run
from gsi.weights import count_parameters

WITHIN = 0.30
PROBE = 50
RUNS: dict[str, dict[str, Any]] = {
    "state_reset, pool 2, 400 questions, 2 iterations": {
        "strategy": "state_reset", "iterations": 2, "tasks": [{"name": "chain", "args": {"seed": 2, "per_level": 40}}],
    },
    "brute force, pool 3, 300 questions": {
        "strategy": "brute_force", "sample": {"max_new_tokens": 96, "max_extra": 16}, "tasks": [{"name": "chain", "args": {"seed": 3, "per_level": 30}}],
    },
}  # fmt: skip


def config(output: Path, name: str, **changes: Any) -> Config:
    base = {
        "model": "lab:chain", "output_dir": str(output / name), "iterations": 1, "strategy": "vanilla", "accept": "steps",
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 40}}], "prompt": {"template": "{question}"}, "sample": {"max_new_tokens": 96},
        "train": {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16}, "evaluate": {"validation": 20, "perplexity_rows": 0},
    }  # fmt: skip
    return load_config(base | changes)


class Results:
    """What is finished, by name, in a file."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def get(self, name: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        if name not in self.known:
            self.known[name] = make()
            write_text(self.path, json.dumps(self.known, indent=1) + "\n")
        return self.known[name]


def measured(c: Config) -> dict[str, float]:
    """Runs it from its beginning: tokens, and processor seconds of this process, of the training loops, and of what the children did beside (starts, grading)."""
    shutil.rmtree(c.output_dir, ignore_errors=True)  # of a run that was begun, the processor time is lost
    before = os.times()
    view = read_run(run(c, reporter=Reporter("quiet")).path)
    after = os.times()
    own = after.user + after.system - before.user - before.system
    children = after.children_user + after.children_system - before.children_user - before.children_system
    loops = sum(stage.get("figure/seconds_processor", 0.0) for name, stage in view.state["stages"].items() if name.endswith("/train"))
    evaluated = sum(r["tokens"] for splits in view.evals.values() for tasks in splits.values() for r in tasks.values())
    return {
        "generated": view.total("sample/tokens"), "evaluated": evaluated, "trained": view.total("train/tokens"), "own": own, "loops": loops,
        "beside": children - loops, "all": own + children,
    }  # fmt: skip


def estimated(c: Config) -> dict[str, float]:
    """What `--dry-run --probe` says of it."""
    data = load_data(c)
    data.grader.close()
    load, _ = probe(c, Load(len(data.train), len(data.validation), len(data.test), Range(0, 0), Range(0, 0), 0, 0, 0), PROBE)
    found = cost.estimate(c, load, count_parameters(build.resolve_model(c)), None)
    assert found.hours is not None
    parts = {"generated": found.generated, "trained": found.trained, "all": found.hours * 3600}
    return {f"{key}_{end}": value for key, bounds in parts.items() for end, value in zip(("low", "high"), bounds, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Estimates against real runs.")
    parser.add_argument("--output", type=Path, default=Path("runs/cost-check"))
    parser.add_argument("--fresh", action="store_true", help="forget what is finished")
    args = parser.parse_args()
    output: Path = args.output
    if args.fresh:
        shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    results = Results(output / "results.json")
    if len(results.known) < 1 + 2 * len(RUNS):
        # builds the base where it is not there yet and imports everything, neither of which is part of a run's cost
        measured(config(output, "first", tasks=[{"name": "chain", "args": {"seed": 9, "per_level": 3}}]))
    known = results.get("calibration", lambda: measured(config(output, "calibration")))
    rates = {
        "decode_tokens_per_second": (known["generated"] + known["evaluated"]) / known["own"],
        "train_tokens_per_second": known["trained"] / known["loops"],
        "start_seconds": known["beside"] / 3,  # an iteration starts two engines and one training
    }
    console, table, worst = table_console(), Table("run", "what", "estimated", "took", "off by"), 0.0
    for name, changes in RUNS.items():
        c = config(output, name.split(",")[0].replace(" ", "_"), **changes, cost=rates)
        said = results.get(f"estimate of {name}", functools.partial(estimated, c))
        took = results.get(name, functools.partial(measured, c))
        for what, key in (("tokens generated", "generated"), ("tokens trained", "trained"), ("processor seconds", "all")):
            low, high = said[f"{key}_low"], said[f"{key}_high"]
            off = (low + high) / 2 / took[key] - 1
            worst = max(worst, abs(off))
            table.add_row(name, what, f"{low:,.0f} to {high:,.0f}", f"{took[key]:,.0f}", f"{off:+.0%}")
    console.print(table)
    print(f"the worst estimate is {worst:.0%} off; {'within' if worst <= WITHIN else 'beyond'} {WITHIN:.0%}")
    return 0 if worst <= WITHIN else 1


if __name__ == "__main__":
    end(main)

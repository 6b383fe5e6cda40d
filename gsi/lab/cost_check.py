"""`make cost-check`: what `--dry-run --probe` estimates, against what runs of the lab then took.

    python -m gsi.lab.cost_check [--output runs/cost-check]

The rates and start-up times of this machine come from one run (vanilla, one iteration); the runs that are estimated differ
in strategy, pool, size and iterations. Tokens, trained tokens and time must be within 30 % (the middle of an interval
counts). Time is that of the engine and of the training, starts included; loading the data is left out. Memory is not
checked here: what a tiny model takes is nearly all Python and torch.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from gsi import build, cost
from gsi.config import Config, load_config
from gsi.cost import Load, Range
from gsi.loop import run
from gsi.probe import probe
from gsi.progress import Reporter, table_console
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


def measured(path: Path) -> dict[str, float]:
    view = read_run(path)
    clock = view.state["clock"]
    evaluated = sum(r["tokens"] for splits in view.evals.values() for tasks in splits.values() for r in tasks.values())
    sampling = clock.get("engine_run", 0.0) + clock.get("engine_start", 0.0)
    training = clock.get("train_run", 0.0) + clock.get("train_start", 0.0)
    return {
        "generated": view.total("sample/tokens"), "evaluated": evaluated, "trained": view.total("train/tokens"), "sampling": sampling,
        "training": training, "engine_run": clock["engine_run"], "train_run": clock["train_run"],
        "starts": (clock["engine_start"] + clock["train_start"]) / (view.state["engine_starts"] + view.state["iterations"]),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Estimates against real runs.")
    parser.add_argument("--output", type=Path, default=Path("runs/cost-check"))
    output = parser.parse_args().output
    shutil.rmtree(output, ignore_errors=True)
    known = measured(run(config(output, "calibration"), reporter=Reporter("quiet")).path)
    rates = {
        "decode_tokens_per_second": (known["generated"] + known["evaluated"]) / known["engine_run"],
        "train_tokens_per_second": known["trained"] / known["train_run"], "start_seconds": known["starts"],
    }  # fmt: skip
    console, table, worst = table_console(), Table("run", "what", "estimated", "took", "off by"), 0.0
    for name, changes in RUNS.items():
        c = config(output, name.split(",")[0].replace(" ", "_"), **changes, cost=rates)
        data = build.load_data(c)
        data.grader.close()
        n = len(data.train)
        load, _ = probe(c, Load(n, len(data.validation), len(data.test), Range(0, 0), Range(0, 0), 0, 0, 0), PROBE)
        found = cost.estimate(c, load, count_parameters(build.resolve_model(c)), None)
        assert found.sampling_seconds is not None
        assert found.training_seconds is not None
        took = measured(run(c, reporter=Reporter("quiet")).path)
        for what, estimated, real in (
            ("tokens generated", found.generated, took["generated"]), ("tokens trained", found.trained, took["trained"]),
            ("seconds, sampling and evaluation", found.sampling_seconds, took["sampling"]), ("seconds, training", found.training_seconds, took["training"]),
        ):  # fmt: skip
            off = (estimated.low + estimated.high) / 2 / real - 1
            worst = max(worst, abs(off))
            table.add_row(name, what, f"{estimated.low:,.0f} to {estimated.high:,.0f}", f"{real:,.0f}", f"{off:+.0%}")
    console.print(table)
    print(f"the worst estimate is {worst:.0%} off; {'within' if worst <= WITHIN else 'beyond'} {WITHIN:.0%}")
    return 0 if worst <= WITHIN else 1


if __name__ == "__main__":
    sys.exit(main())

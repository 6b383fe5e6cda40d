"""`make demo`: five strategies side by side on a tiny model, through the real loop, in minutes on two cores.

    python -m gsi.lab.demo [--output runs/demo] [--gsm8k FILE]

Real transformers models, real sampling, grading with every step checked, training with TRL in its own process, evaluation
on fresh questions. What it does not show is printed with the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gsi.lab.command import end
from gsi.progress import table_console
from gsi.report.read import RunView, read_run
from gsi.strategies import STRATEGIES
from gsi.types import GsiError

ITERATIONS = 3
EXTRA = 12  # extra attempts per question at most, for every arm that draws extras; the paper's brute force may spend 128
SHOWN = ("vanilla", "brute_force", "state_reset", "own_prefix", "sft_refs_hard")
STARTED = ("own_prefix", "brute_force", "state_reset", "sft_refs_hard", "vanilla")  # the longest first: two run at a time
POOL = (([1, 2, 3], 15), ([4, 5], 30), ([6, 7, 8], 200))  # levels, questions of each
FRESH = (([1, 2, 3, 4, 5], 40), ([6, 7, 8], 120))
BANDS = {"levels 1-3": range(1, 4), "levels 4-5": range(4, 6), "levels 6-8": range(6, 9)}
NOTE = """What this shows: the machinery, the tail by level, what each arm costs, and a control: sft_refs_hard trains on the references of the questions
that vanilla does not solve. own_prefix restarts from the last right step of the model's own attempts, which the checker of steps names.
What it does not show: anything about other tasks or seeds. One seed proves nothing; docs/findings.md has more, with intervals."""

console = table_console()


def arm_config(strategy: str, output: Path) -> dict[str, Any]:
    """The arms differ in their strategy only; the settings are those of the lab's studies."""
    extra = {} if strategy in ("vanilla", "sft_refs_hard") else {"max_extra": EXTRA}
    return {
        "model": "lab:dag",
        "output_dir": str(output / strategy),
        "iterations": ITERATIONS,
        "strategy": strategy,
        "accept": "steps",
        "tasks": _questions(1, POOL),
        "prompt": {"template": "{question}"},
        "sample": {"k": 4, "wanted": 2, "max_new_tokens": 128} | extra,
        "train": {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16},
        "evaluate": {"validation": 0, "perplexity_rows": 0, "tasks": _questions(1_000_001, FRESH)},
    }


def _questions(seed: int, counts: Sequence[tuple[list[int], int]]) -> list[dict[str, Any]]:
    return [{"name": "dag", "args": {"seed": seed, "per_level": n, "levels": levels}} for levels, n in counts]


def gsm8k_config(source: str | None, output: Path) -> dict[str, Any]:
    """The same loop on 20 real questions, with a model that has learned nothing."""
    return {
        "model": "lab:untrained",
        "output_dir": str(output / "gsm8k"),
        "iterations": 1,
        "strategy": "state_reset",
        "tasks": [{"name": "gsm8k", "limit": 20} | ({"path": source} if source else {})],
        "sample": {"k": 2, "wanted": 1, "max_extra": 2, "max_new_tokens": 48},
        "evaluate": {"validation": 0.2},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Five strategies side by side on a tiny model.")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--gsm8k", help="JSONL file of GSM8K for the second part; default: the hub, where it can be reached")
    args = parser.parse_args()
    started = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=2) as bars:
        base = bars.add_task("base model (built once, then cached)", total=1, note="")
        _build_base(lambda done, total: bars.update(base, completed=done, total=total))
        bars.update(base, completed=1, total=1)
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(lambda arm: _run(arm_config(arm, args.output), args.output / f"{arm}.yaml", bars), STARTED))
    for arm, (code, log) in zip(STARTED, ended, strict=True):
        if code != 0:
            raise GsiError(f"demo: the arm {arm} ended with code {code}:\n{log}")
    runs = [read_run(args.output / arm) for arm in SHOWN]
    _table(runs)
    console.print(NOTE)
    for run in runs:
        console.print(f"{run.path}: {overhead(run)}")
    _real_questions(args.gsm8k, args.output)
    console.print(
        f"run folders: {args.output}/{{{','.join(SHOWN)}}}; `.venv/bin/gsi report {' '.join(str(r.path) for r in runs)}` compares them in HTML"
    )
    console.print(f"demo took {time.monotonic() - started:.0f} s")
    return 0


def _build_base(progress: Any) -> None:
    from gsi.lab.base import resolve

    resolve("lab:dag", progress)


def _run(config: dict[str, Any], path: Path, bars: Progress) -> tuple[int, str]:
    """Runs `gsi run` as a user would, and draws its progress. Returns the exit code and what else it printed."""
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    name, printed = config["strategy"], []
    bar = bars.add_task(name, total=None, note="")
    env = {"OMP_NUM_THREADS": "1"} | os.environ  # two runs at a time on two cores: more threads only wait for one another
    command = [sys.executable, "-m", "gsi", "run", str(path), "--log", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=env) as child:
        assert child.stderr is not None
        for line in child.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                printed.append(line)
                continue
            if event.get("event") == "progress":
                bars.update(
                    bar,
                    description=f"{name}: {event['stage']}"
                    if event["iteration"] is None
                    else f"{name}: iteration {event['iteration']}: {event['stage']}",
                    completed=event["done"],
                    total=event["total"],
                    note=event["note"],
                )
    bars.update(bar, description=f"{name}: done" if child.returncode == 0 else f"{name}: failed", note="")
    return child.returncode, "".join(printed)


def _table(runs: list[RunView]) -> None:
    table = Table("arm", "may see", *BANDS, "hard share of training rows", "coverage", "generated tokens", title=_title())
    table.add_row("base model", "", *_accuracy(runs[0], 0), "", "", "")
    for run in runs:
        final = run.final()
        shares = " -> ".join(f"{line['tail/hard_share']:.1%}" for line in run.metrics if "tail/hard_share" in line)
        table.add_row(
            run.strategy,
            STRATEGIES[run.strategy].sees,
            *_accuracy(run, ITERATIONS),
            shares,
            f"{final['tail/coverage']:.1%}",
            f"{run.total('sample/tokens'):,}",
        )
    console.print(table)


def _accuracy(run: RunView, n: int) -> list[str]:
    levels = run.evals[n]["test"]["dag"]["levels"]
    return [f"{sum(levels[str(x)]['right'] for x in band) / sum(levels[str(x)]['n'] for x in band):.0%}" for band in BANDS.values()]


def _title() -> str:
    total, hard = sum(len(levels) * n for levels, n in POOL), len(POOL[-1][0]) * POOL[-1][1]
    return (
        f"dependency problems, {ITERATIONS} iterations, {total} questions of levels 1-8 (hard: 6-8, {hard / total:.0%} of the questions)\n"
        f"greedy accuracy on fresh questions, all steps right; 4 attempts per question, and up to {EXTRA} extra ones where fewer than 2 were right"
    )


def overhead(run: RunView) -> str:
    """Wall time that is neither generation nor training, start-up times apart."""
    clock = run.state["clock"]
    work = clock.get("engine_run", 0.0) + clock.get("train_run", 0.0)
    start = clock.get("engine_start", 0.0) + clock.get("train_start", 0.0) + clock.get("load", 0.0)
    loop = clock["wall"] - work - start
    return f"{clock['wall']:.0f} s: engine {clock['engine_run']:.0f} s, training {clock['train_run']:.0f} s, start-up {start:.0f} s, loop {loop:.1f} s ({loop / clock['wall']:.1%})"


def _real_questions(source: str | None, output: Path) -> None:
    """The second part. An untrained model solves nothing, and the run has to say so."""
    path = output / "gsm8k.yaml"
    path.write_text(yaml.safe_dump(gsm8k_config(source, output), sort_keys=False), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "gsi", "run", str(path), "--log", "quiet"], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    if done.returncode == 3:
        console.print("[bold]20 real GSM8K questions, a model that has learned nothing, the same `gsi run`. It says:[/bold]")
        console.print(done.stderr.strip(), markup=False)
    elif done.returncode == 2:
        console.print(
            f"20 real GSM8K questions: left out. {done.stderr.strip()}\nWith a local file: make demo GSM8K=FILE.jsonl", markup=False
        )
    else:
        raise GsiError(f"demo: the run on GSM8K ended with code {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    end(main)

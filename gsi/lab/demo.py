"""`make demo`: three strategies side by side on a tiny model, through the real loop, in minutes on two cores.

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gsi.lab.command import end
from gsi.progress import table_console
from gsi.report.read import RunView, read_run
from gsi.types import GsiError

ARMS = ("brute_force", "state_reset", "vanilla")  # the longest first: two run at a time
ITERATIONS = 3
BRUTE_FORCE_EXTRA = 24  # extra attempts per query at most; the paper's brute force may spend 128
PER_LEVEL = 100  # training questions per level, and as many fresh ones for the evaluation
BANDS = {"levels 1-3": range(1, 4), "levels 4-6": range(4, 7), "levels 7-10": range(7, 11)}
NOTE = """What this shows: the machinery, the tail by level, and what each arm costs. What it does not show: that guidance beats training on the
references. A question of this task has exactly one right rationale, so an accepted guided sample IS the reference, and one seed
proves nothing. The lab's studies are there for claims."""

console = table_console()


def arm_config(strategy: str, output: Path) -> dict[str, Any]:
    """The arms differ in their strategy only (and in the extra attempts it may spend)."""
    return {
        "model": "lab:chain",
        "output_dir": str(output / strategy),
        "iterations": ITERATIONS,
        "strategy": strategy,
        "accept": "steps",
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": PER_LEVEL}}],
        "prompt": {"template": "{question}"},
        "sample": {"max_new_tokens": 96} | ({"max_extra": BRUTE_FORCE_EXTRA} if strategy == "brute_force" else {}),
        "train": {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16},
        "evaluate": {"validation": 0, "tasks": [{"name": "chain", "args": {"seed": 1000, "per_level": PER_LEVEL}}]},
    }


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
    parser = argparse.ArgumentParser(description="Three strategies side by side on a tiny model.")
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
            ended = list(pool.map(lambda arm: _run(arm_config(arm, args.output), args.output / f"{arm}.yaml", bars), ARMS))
    for arm, (code, log) in zip(ARMS, ended, strict=True):
        if code != 0:
            raise GsiError(f"demo: the arm {arm} ended with code {code}:\n{log}")
    runs = [read_run(args.output / arm) for arm in ("vanilla", "brute_force", "state_reset")]
    _table(runs)
    console.print(NOTE)
    for run in runs:
        console.print(f"{run.path}: {overhead(run)}")
    _real_questions(args.gsm8k, args.output)
    console.print(
        f"run folders: {args.output}/{{{','.join(ARMS)}}}; `.venv/bin/gsi report {' '.join(str(r.path) for r in runs)}` compares them in HTML"
    )
    console.print(f"demo took {time.monotonic() - started:.0f} s")
    return 0


def _build_base(progress: Any) -> None:
    from gsi.lab.base import resolve

    resolve("lab:chain", progress)


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
    table = Table("arm", *BANDS, "hard share of training rows", "coverage", "generated tokens", "accepted, lucky left out", title=_title())
    table.add_row("base model", *_accuracy(runs[0], 0), "", "", "", "")
    for run in runs:
        final = run.final()
        shares = " -> ".join(f"{line['tail/hard_share']:.1%}" for line in run.metrics if "tail/hard_share" in line)
        table.add_row(
            run.strategy,
            *_accuracy(run, ITERATIONS),
            shares,
            f"{final['tail/coverage']:.1%}",
            f"{run.total('sample/tokens'):,}",
            f"{run.total('sample/accepted'):,}",
        )
    console.print(table)


def _accuracy(run: RunView, n: int) -> list[str]:
    levels = run.evals[n]["test"]["chain"]["levels"]
    return [f"{sum(levels[str(x)]['right'] for x in band) / sum(levels[str(x)]['n'] for x in band):.0%}" for band in BANDS.values()]


def _title() -> str:
    return (
        f"named-chain arithmetic, {ITERATIONS} iterations, {PER_LEVEL} questions per level 1-10 (hard: 7-10, 40 % of the questions)\n"
        f"greedy accuracy on as many fresh questions, all steps right; brute force with up to {BRUTE_FORCE_EXTRA} extra attempts (the paper: 128)"
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

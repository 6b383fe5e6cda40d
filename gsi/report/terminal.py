"""Tables for the terminal: where a run is, runs side by side, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from gsi.metrics import wilson
from gsi.progress import table_console
from gsi.report.read import RunView, finite, read_run
from gsi.types import GsiError

console = table_console()


def status(path: Path) -> None:
    """Stages that are done, the next one, and the figures of each iteration."""
    run = read_run(path)
    order, left = run.stages()
    console.print(f"{run.path}: {run.strategy} on {run.config.get('model')}", markup=False)
    console.print(f"stages done: {len(order) - len(left)} of {len(order)}" + (f"; next: {left[0]}" if left else "; finished"), markup=False)
    for line in run.missing:
        console.print(f"missing: {line}", markup=False)
    _iterations(run)


def summary(path: Path) -> None:
    """What a finished run has to say: a table of its iterations and the result in a sentence."""
    run = read_run(path)
    _iterations(run)
    console.print(sentence(run), markup=False)
    console.print(f"run folder: {path}", markup=False)


def sentence(run: RunView) -> str:
    """The result in one sentence, then the tail, then the cost; candid about nothing learned."""
    return " ".join(part for part in (result(run), tail(run), cost(run)) if part)


def result(run: RunView) -> str:
    """What became of the accuracy."""
    n, parts = run.final().get("iteration", 0), []
    for split in ("test", "validation"):
        first, last = accuracy(run, 0, split), accuracy(run, n, split)
        if first and last and n:
            (a, _), (b, asked) = first, last
            low, high = wilson(round(b * asked), asked)
            verb = "rose" if low > a else "fell" if high < a else "went"
            parts.append(f"{split} accuracy {verb} from {a:.1%} to {b:.1%} (95 % interval {low:.1%} to {high:.1%}, {asked:,} questions)")
            if b == 0:
                parts.append(f"the model solves none of the {split} questions")
    text = "; ".join(parts) or "nothing was evaluated before and after"
    return f"{text[0].upper()}{text[1:]}."


def tail(run: RunView) -> str:
    """What became of the hard questions and of coverage."""
    parts = []
    hard = [(line["iteration"], line["tail/hard_share"]) for line in run.metrics if finite(line.get("tail/hard_share")) is not None]
    if hard:
        own = finite(run.final().get("tail/query_hard_share"))
        before = f", after {hard[0][1]:.1%} in iteration {hard[0][0]}" if len(hard) > 1 else ""
        parts.append(
            f"hard questions are {hard[-1][1]:.1%} of the training rows{before}"
            + (f" ({own:.1%} of the questions are hard)" if own is not None else "")
        )
    covered = [line["tail/coverage"] for line in run.metrics if finite(line.get("tail/coverage")) is not None]
    if covered:
        parts.append(
            f"{covered[-1]:.1%} of the training questions are covered in the last iteration"
            + (f", {covered[0]:.1%} in the first" if len(covered) > 1 else "")
        )
    return f"The tail: {'; '.join(parts)}." if parts else ""


def cost(run: RunView) -> str:
    return f"{run.total('sample/accepted'):,} rollouts of {run.total('sample/rollouts'):,} were accepted, {run.total('sample/tokens'):,} tokens generated."


def accuracy(run: RunView, n: int, split: str = "validation") -> tuple[float, int] | None:
    """(greedy accuracy, questions) of an iteration over all tasks of a split; None where it was not evaluated."""
    results = run.evals.get(n, {}).get(split, {}).values()
    total = sum(r["n"] for r in results)
    return (sum(r["pass@1"] * r["n"] for r in results) / total, total) if total else None


def _iterations(run: RunView) -> None:
    columns = {
        "train rows": ("train/rows", "{:,}"),
        "loss": ("train/loss", "{:.3f}"),
        "rollouts": ("sample/rollouts", "{:,}"),
        "accepted": ("sample/accepted", "{:,}"),
        "coverage": ("tail/coverage", "{:.1%}"),
        "hard share": ("tail/hard_share", "{:.1%}"),
        "tokens": ("sample/tokens", "{:,}"),
    }
    columns = {name: c for name, c in columns.items() if any(c[0] in line for line in run.metrics)}
    table = Table("iteration", "validation", *columns, title=f"{run.name} ({run.strategy})")
    for line in run.metrics:
        shown = accuracy(run, line["iteration"])
        cells = [pattern.format(line[key]) if line.get(key) is not None else "" for key, pattern in columns.values()]
        table.add_row(str(line["iteration"]), f"{shown[0]:.1%}" if shown else "", *cells)
    console.print(table)


def compare(paths: Sequence[Path]) -> None:
    """Runs side by side: final accuracy with intervals, hard share, coverage and what they cost."""
    runs = [read_run(p) for p in paths]
    table = Table(
        "run", "strategy", "iterations", "validation (95 %)", "hard accuracy", "hard share", "coverage", "tokens", "accepted", "FLOPs"
    )
    for run in runs:
        final = run.final()
        shown = accuracy(run, final.get("iteration", 0))
        text = ""
        if shown:
            low, high = wilson(round(shown[0] * shown[1]), shown[1])
            text = f"{shown[0]:.1%} ({low:.1%} to {high:.1%})"
        table.add_row(
            run.name,
            run.strategy,
            str(final.get("iteration", "")),
            text,
            _percent(hard_accuracy(run, final.get("iteration", 0))),
            _percent(final.get("tail/hard_share")),
            _percent(final.get("tail/coverage")),
            f"{run.total('sample/tokens'):,}",
            f"{run.total('sample/accepted'):,}",
            f"{run.total('cost/flops'):.2g}",
        )
    console.print(table)


def hard_accuracy(run: RunView, n: int) -> float | None:
    """Greedy accuracy over the hard levels, on test where there is one, else on validation."""
    hard = run.state.get("hard_levels")
    hard = hard if isinstance(hard, dict) else {}
    results = run.evals.get(n, {})
    right = asked = 0
    for task, result in (results.get("test") or results.get("validation") or {}).items():
        for level, counts in result["levels"].items():
            if int(level) in hard.get(task, ()):
                right, asked = right + counts["right"], asked + counts["n"]
    return right / asked if asked else None


def _percent(value: Any) -> str:
    return "" if value is None else f"{value:.1%}"


# --------------------------------------------------------------------------------------- tasks


def list_tasks() -> None:
    from gsi.tasks import TASKS

    table = Table("task", "hub id", "hard levels")
    for name, spec in TASKS.items():
        table.add_row(name, spec.hub or "generated here", ", ".join(map(str, spec.hard_levels)))
    console.print(table)


def show_task(name: str) -> None:
    from gsi.tasks import TASKS

    if name not in TASKS:
        raise GsiError(f"tasks show: unknown task {name!r}; there are {', '.join(TASKS)}")
    for key, value in vars(TASKS[name]).items():
        console.print(f"{key}: {value.__name__ if callable(value) else value}", markup=False)


def check_file(path: str, task: str) -> None:
    """Loads a data file, grades every answer against itself and lists what would be left out."""
    from gsi import tasks
    from gsi.config import Task
    from gsi.verify import make_grader

    data = tasks.load(Task(name=task, path=path))
    grader = make_grader({task: None}, workers=2, timeout=5.0)
    try:
        kept, bad = tasks.check_golds(data.queries, grader)
    finally:
        grader.close()
    for problem in [*data.problems, *bad]:
        console.print(str(problem), markup=False)
    console.print(f"{len(kept)} of {len(data.queries)} questions are usable", markup=False)

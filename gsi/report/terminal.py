"""Tables for the terminal: where a run is, runs side by side, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from gsi.progress import table_console
from gsi.report import comparison, live, overview
from gsi.report.parts import Cell, clean, duration
from gsi.report.parts import Table as Figures
from gsi.report.read import STAGES, RunView, finite, read_run
from gsi.report.tally import Tally
from gsi.report.words import accuracy, sentence
from gsi.types import GsiError

console = table_console()


def status(path: Path) -> None:
    """Where a run is: what is done and how long it took, what is at work, how fast and for how long still, and the figures so far."""
    run = read_run(path)
    order, left = run.stages()
    now, problem = _now(run)
    say(f"{run.path}: {run.strategy} on {run.config.get('model')}, {now['state']}")
    say(f"stages done: {len(order) - len(left)} of {len(order)}" + (f"; next: {left[0]}" if left else "; finished"))
    for line in [*run.missing, *problem]:
        say(f"missing: {line}")
    if left and now["iteration"] is not None:
        covered = f", {now['covered']:,} of {now['asked']:,} questions covered" if now["asked"] else ""
        say(f"iteration {now['iteration']}: {now['rollouts']:,} rollouts, {now['accepted']:,} accepted{covered}, {now['tokens']:,} tokens")
    if now["tokens_per_s"]:
        say(f"{now['rollouts_per_s']:.1f} rollouts/s, {now['tokens_per_s']:,.0f} tokens/s")
    for what, seconds in (("stage", now["left_stage"]), ("run", now["left_run"])):
        if seconds is not None:
            say(f"about {duration(seconds)} left in this {what}")
    for line in overview.alarms(run):
        say(line)
    _stages(run, now)
    _iterations(run)


def _now(run: RunView) -> tuple[dict[str, Any], list[str]]:
    try:
        with Tally(run.path, run.config.get("accept")) as tally:
            return live.snapshot(run, tally), []
    except GsiError as e:
        return live.snapshot(run, None), [f"ledger.sqlite: {e}"]


def _stages(run: RunView, now: dict[str, Any]) -> None:
    order, left = run.stages()
    known = run.state.get("stages") or {}
    table = Table("iteration", *STAGES, title="stages, seconds")
    for n in dict.fromkeys(at.split("/")[0] for at in order if "/" in at):
        cells = []
        for s in STAGES:
            at = f"{n}/{s}"
            info = known.get(at)
            took = finite(info.get("seconds")) if isinstance(info, dict) else None
            at_work = at == now["stage"] and now["state"] == "running"
            cells.append(
                ""
                if at not in order
                else "running"
                if at_work
                else "to do"
                if at in left
                else f"{took:,.1f}"
                if took is not None
                else "done"
            )
        table.add_row(n[5:], *cells)
    console.print(table)


def summary(path: Path) -> None:
    """What a finished run has to say: a table of its iterations and the result in a sentence."""
    run = read_run(path)
    _iterations(run)
    say(sentence(run))
    say(f"run folder: {path}")


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
    table = Table("iteration", "validation", *columns, title=Text(clean(f"{run.name} ({run.strategy})")))
    for line in run.metrics:
        shown = accuracy(run, line["iteration"])
        cells = [pattern.format(line[key]) if finite(line.get(key)) is not None else "" for key, pattern in columns.values()]
        table.add_row(str(line["iteration"]), f"{shown.rate:.1%}" if shown else "", *cells)
    console.print(table)


def compare(paths: Sequence[Path]) -> None:
    """Runs side by side: figures with intervals, paired differences to the first run, and what each reached at equal tokens."""
    runs = [read_run(p) for p in paths]
    sides = []
    for name, run in zip(comparison.names_of(runs), runs, strict=True):
        try:
            with Tally(run.path, run.config.get("accept")) as tally:
                sides.append(comparison.side(name, run, tally))
        except GsiError as e:
            say(f"{name}: {e}; it is compared without its ledger")
            sides.append(comparison.side(name, run, None))
    section = comparison.section(sides)
    if len(sides) > 1:
        say(comparison.headline(sides))
    say(section.lead)
    for part in section.parts:
        figures = part if isinstance(part, Figures) else part.table
        if len(sides) > 1 or isinstance(part, Figures):
            _print(figures)


def _print(figures: Figures) -> None:
    table = Table(title=Text(figures.caption), title_justify="left")
    for i, name in enumerate(figures.head.split("|")):
        number = bool(figures.rows) and isinstance(figures.rows[0][i], Cell)
        table.add_column(Text(name), no_wrap=i == 0, justify="right" if number else "left")
    for row in figures.rows:
        table.add_row(*(Text(clean(cell.text if isinstance(cell, Cell) else str("" if cell is None else cell))) for cell in row))
    console.print(table)
    if figures.note:
        say(figures.note)


def say(text: str) -> None:
    console.print(clean(text), markup=False)


# --------------------------------------------------------------------------------------- tasks

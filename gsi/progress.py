"""What a run says while it works: bars on a terminal, plain lines elsewhere, JSON lines for machines (`--log json`, see docs/report.md)."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gsi.sampling import Stats

Figures = Mapping[str, float]


def table_console() -> Console:
    """For tables on standard output: as wide as the terminal, and wide enough where there is none."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 140
    return console


class Reporter:
    """Prints messages and shows the progress of one stage at a time.

    Args:
        mode: `auto` (bars on a terminal, else lines), `bars`, `lines`, `json` or `quiet`.
    """

    def __init__(self, mode: str = "auto", every: float = 10.0):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.mode = ("bars" if self.console.is_terminal else "lines") if mode == "auto" else mode
        self.every = every  # seconds between plain lines
        self._last = 0.0

    def say(self, text: str, **fields: Any) -> None:
        if self.mode == "json":
            self._json(event="message", text=text, **fields)
        elif self.mode != "quiet":
            self.console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """Yields `update(done, figures={}, total=None)`; `figures` as `sampling_figures` makes them."""
        started = time.monotonic()
        if self.mode == "json":
            self._json(event="stage", **_parts(name), state="started", total=total)
        if self.mode == "bars":
            with self._bars() as bars:
                task = bars.add_task(name, total=total, note="")
                yield lambda done, figures=None, total=None: bars.update(
                    task, completed=done, note=_note(figures), **({"total": total} if total else {})
                )
            return
        self._last = 0.0
        whole, begun = total, 0  # done at the first update: a resumed stage does not begin at 0

        def update(done: int, figures: Figures | None = None, total: int | None = None) -> None:
            nonlocal whole, begun
            if self._last == 0.0:
                begun = min(done, whole - 1)
            whole, at = total or whole, time.monotonic()
            if done != whole and at - self._last < (0.5 if self.mode == "json" else self.every):
                return
            self._last = at
            left = (at - started) * (whole - done) / (done - begun) if done > begun and at > started else None
            if self.mode == "json":
                self._json(event="progress", **_parts(name), done=done, total=whole, seconds=round(at - started, 3), seconds_left=None if left is None else round(left, 1), note=_note(figures), **(figures or {}))  # fmt: skip
            elif self.mode == "lines":
                time_left = f", about {_time(left)} left" if left and done != whole else ""
                self.console.print(f"{name}: {done}/{whole} {_note(figures)}".rstrip() + time_left, markup=False)

        yield update
        if self.mode == "json":
            self._json(event="stage", **_parts(name), state="done", seconds=round(time.monotonic() - started, 3))

    def _bars(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        return Progress(*columns, console=self.console, refresh_per_second=4)

    def _json(self, **fields: Any) -> None:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
        print(json.dumps({"time": round(time.time(), 3)} | finite), file=sys.stderr, flush=True)


def sampling_figures(stats: Stats, since: float) -> dict[str, float]:
    """accepted, of the finished queries coverage and wasted tokens (share), generated tokens and their rate (per second since `since`)."""
    seconds = max(time.monotonic() - since, 1e-9)
    covered = {"coverage": stats.covered / stats.finished} if stats.finished else {}
    covered |= {"waste": stats.wasted / stats.all_tokens} if stats.all_tokens else {}
    return {"accepted": stats.accepted, **covered, "tokens": stats.tokens, "tokens_per_s": round(stats.tokens / seconds, 1)}


def _note(figures: Figures | None) -> str:
    if not figures:
        return ""
    covered = f", {figures['coverage']:.0%} covered" if "coverage" in figures else ""
    wasted = f" ({figures['waste']:.1%} wasted)" if figures.get("waste") else ""
    return f"{figures['accepted']:,} accepted{covered}, {figures['tokens']:,} tokens{wasted}, {figures['tokens_per_s']:,.0f}/s"


def _parts(name: str) -> dict[str, Any]:
    """`iteration 2: sample (vanilla)` as fields of an event."""
    found = re.fullmatch(r"iteration (\d+): (\w+)(?: \((.*)\))?", name)
    if not found:
        return {"stage": name, "iteration": None}
    return {"stage": found[2], "iteration": int(found[1])} | ({"what": found[3]} if found[3] else {})


def _time(s: float) -> str:
    return f"{s:.0f} s" if s < 100 else f"{s / 60:.0f} min" if s < 6000 else f"{s / 3600:.1f} h"

"""What a run says while it works: bars on a terminal, plain lines elsewhere, JSON lines for machines (`--log json`)."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gsi.sampling import Stats


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
    def stage(self, name: str, total: int) -> Iterator[Any]:
        """Yields `update(done, note)`."""
        if self.mode == "bars":
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, refresh_per_second=4) as bars:
                task = bars.add_task(name, total=total, note="")
                yield lambda done, note="", total=None: bars.update(task, completed=done, note=note, **({"total": total} if total else {}))
            return
        self._last = 0.0

        def update(done: int, note: str = "", total: int | None = total) -> None:
            at = time.monotonic()
            if done != total and at - self._last < (0.5 if self.mode == "json" else self.every):
                return
            self._last = at
            if self.mode == "json":
                self._json(event="progress", stage=name, done=done, total=total, note=note)
            elif self.mode == "lines":
                self.console.print(f"{name}: {done}/{total} {note}".rstrip(), markup=False)

        yield update

    def _json(self, **fields: Any) -> None:
        print(json.dumps(fields), file=sys.stderr, flush=True)


def sampling_note(stats: Stats, since: float) -> str:
    """Accepted, coverage so far, tokens and their rate."""
    seconds = max(time.monotonic() - since, 1e-9)
    covered = f", {stats.covered / stats.finished:.0%} covered" if stats.finished else ""
    return f"{stats.accepted} accepted{covered}, {stats.tokens} tokens, {stats.tokens / seconds:.0f}/s"

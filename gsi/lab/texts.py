"""Numbers and tables of the findings as text: shares in percent, differences in points, Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from gsi import stats


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def average(values: Sequence[float]) -> str:
    """In percent."""
    return percent(fmean(values)) if values else "-"


def points(differences: Sequence[float]) -> str:
    """`+3.1 [1.2, 5.0]` in percentage points, with its p."""
    mean, low, high = stats.t_interval(differences)
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if len(differences) > 1 else ""
    return f"{100 * mean:+.1f}{interval}"


def spread(values: Sequence[float]) -> str:
    """Mean and 95 % t-interval half-width over seeds, in percent."""
    values = [v for v in values if not math.isnan(v)]
    if not values:
        return "-"
    mean, low, _ = stats.t_interval(values)
    return f"{100 * mean:.1f} ± {100 * (mean - low):.1f}" if len(values) > 1 else f"{100 * mean:.1f}"


def image(caption: str, path: Path, beside: Path) -> str:
    """The figure in a text that lies in the folder `beside`."""
    return f"![{caption}]({os.path.relpath(path, beside)})"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *("| " + " | ".join(row) + " |" for row in rows), ""]

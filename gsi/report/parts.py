"""What a report is made of: cells, tables and figures, and how numbers are written. Plain values, no HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from gsi.metrics import wilson
from gsi.report.read import finite

NONE = "–"
# C0 and C1 controls, marks that reorder text (bidi), lone surrogates: none of them may reach the page
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Cell:
    """A figure as shown, its exact value, and how strongly it is coloured (0 to 1, None = not)."""

    text: str
    value: float | None = None
    heat: float | None = None


@dataclass(frozen=True)
class Table:
    caption: str
    head: str  # of the columns, with | between
    rows: Sequence[Sequence[Any]]  # the first cell of a row is its heading
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot with what it says in words and the table behind it."""

    id: str  # file name and anchor, unique within a run
    title: str
    says: str  # one sentence: the plot's text alternative
    spec: dict[str, Any]  # Vega-Lite, without size and theme
    table: Table
    series: Sequence[tuple[str, str]] = ()  # (name, colour) of the legend
    wide: bool = False


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    parts: Sequence[Figure | Table] = field(default_factory=tuple)
    lead: str = ""


def clean(text: str) -> str:
    """Characters that would steer a terminal, browser or encoder, written as escapes."""
    return _UNPRINTABLE.sub(lambda m: f"\\x{ord(m[0]):02x}", text)


def shown(value: Any) -> Any:
    """Last stop of every value of a template before it is escaped: nothing is "None", and no character does anything."""
    if value is None:
        return NONE
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cut(text: Any, longest: int = 4000) -> str:
    """Long text without its middle."""
    text = NONE if text is None else str(text)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def number(value: Any, pattern: str = "{:,}", heat: float | None = None) -> Cell:
    value = finite(value)
    return Cell(NONE) if value is None else Cell(pattern.format(value), value, heat)


def percent(value: Any, heat: float | None = None) -> Cell:
    return number(value, "{:.1%}", heat)


def seconds(value: Any) -> Cell:
    return number(value, "{:,.1f}")


def ratio(a: Any, b: Any, pattern: str = "{:,.1f}") -> Cell:
    return number(a / b if finite(a) is not None and b else None, pattern)


def interval(rate: Any, n: Any) -> str:
    """95 % Wilson interval of a rate over n trials."""
    if finite(rate) is None or not n:
        return NONE
    low, high = wilson(round(rate * n), n)
    return f"{low:.1%} to {high:.1%}"


def with_interval(rate: Any, n: Any) -> Cell:
    return Cell(f"{rate:.1%} ({interval(rate, n)})", rate) if finite(rate) is not None and n else percent(rate)


def filled(rows: list[list[Any]]) -> list[list[Any]]:
    """Without the rows that have no figure (iteration 0 samples nothing)."""
    return [row for row in rows if any(getattr(cell, "value", None) is not None for cell in row[1:])]


def short(value: float) -> str:
    """A large number in three digits: 1.27M."""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(s: float) -> str:
    s = round(s)
    if s < 100:
        return f"{s} s"
    return f"{s // 60} min" if s < 6000 else f"{s / 3600:.1f} h"

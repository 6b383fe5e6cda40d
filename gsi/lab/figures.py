"""Figures of the findings, from compact results alone: `python -m gsi.lab.findings STUDY.yaml --figures docs/images`.

Drawn with the report's plots and written as SVG. Intervals are over seeds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gsi import stats
from gsi.lab.matrix import arms
from gsi.lab.outcomes import Begun, Table, cost
from gsi.report.plots import COLOURS, GREY, axis, bars, dots, for_files, lines

SHOWN = 6  # arms in one plot: more colours cannot be told apart
Spec = dict[str, Any]
Drawn = tuple[str, str, Spec]  # name, what it shows, plot


def write(table: Table, folder: Path) -> list[tuple[str, str]]:
    """Writes the figures of one model on one task as SVG. Returns (file name, what it shows) of each."""
    written = []
    for name, caption, spec in (*_shares(table), *_accuracy(table), *_cost(table)):
        file = f"findings-{table.study.name}-{table.model}-{table.task}-{name}.svg"
        _svg(folder / file, caption, spec)
        written.append((file, caption))
    return written


def by_base(seeds: Sequence[Begun], path: Path, title: str) -> None:
    """Writes a figure of a difference against what the initial model solved, a point for every seed."""
    models = list(dict.fromkeys(s.model for s in seeds))
    rows = [{"x": s.base, "y": s.difference, "s": s.model} for s in seeds]
    x, y = axis("hard accuracy of the initial model", percent=True, zero=True), axis("difference after training", percent=True, zero=True)
    _svg(path, title, dots(rows, x, y, dict(zip(models, COLOURS, strict=False))))


def _svg(path: Path, title: str, spec: Spec) -> None:
    import vl_convert

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = for_files(spec | {"title": title, "width": 460, "height": 260})
    path.write_text(_own_ids(vl_convert.vegalite_to_svg(whole)), encoding="utf-8")


def _own_ids(svg: str) -> str:
    """Clip paths counted within the file: the renderer counts them over all that it has drawn, so a new figure would change every later one."""
    found: dict[str, str] = {}
    return re.sub(r"\bclip\d+\b", lambda m: found.setdefault(m.group(), f"clip{len(found)}"), svg)


def _arms(table: Table) -> list[str]:
    """Arms of more than one iteration, in the study's order."""
    there = [a for a in arms(table.study) if a in table.arms]
    return [a for a in there if min(len(r["iterations"]) for r in table.arms[a].values()) > 2]


def _parts(table: Table) -> list[list[str]]:
    """The arms of each plot."""
    all_arms = _arms(table)
    return [all_arms[i : i + SHOWN] for i in range(0, len(all_arms), SHOWN)]


def _shares(table: Table) -> list[Drawn]:
    """The paper's first figure: shares of levels among the questions and among the training rows."""
    shown = _arms(table)[:3]
    if not shown:
        return []
    pools = [record["pool"] for record in table.arms[shown[0]].values()]
    sources = {"questions": pools, f"{shown[0]}, iteration 1": _rows(table, shown[0], 1)}
    sources |= {f"{arm}, last iteration": _rows(table, arm, -1) for arm in shown}
    levels = sorted(int(level) for level in pools[0])
    rows = [
        {"x": level, "y": fmean(f.get(str(level), 0) / sum(f.values()) for f in found), "s": label}
        for label, found in sources.items()
        for level in levels
    ]
    series = dict(zip(sources, (GREY, *COLOURS), strict=False))
    return [
        (
            "levels",
            "Share of levels among questions and training rows",
            bars(rows, "level", axis("share", percent=True, zero=True), series, order=levels),
        )
    ]


def _rows(table: Table, arm: str, n: int) -> list[dict[str, int]]:
    """By seed: training rows by level."""
    return [record["iterations"][n]["rows"]["levels"] for record in table.arms[arm].values()]


def _accuracy(table: Table) -> list[Drawn]:
    """The paper's second figure: accuracy by iteration."""
    drawn = []
    for part, shown in enumerate(_parts(table)):
        rows = [_point(n, table, arm, n) for arm in shown for n in range(_depth(table, arm))]
        x = axis("iteration", integer=sorted({row["x"] for row in rows}))
        drawn.append((_numbered("accuracy", part), "Hard accuracy on fresh questions, by iteration", _lines(shown, rows, x)))
    return drawn


def _cost(table: Table) -> list[Drawn]:
    """The same against what it cost."""
    drawn = []
    for part, shown in enumerate(_parts(table)):
        rows = []
        for arm in shown:
            for n in range(1, _depth(table, arm)):
                rows.append(_point(fmean(cost(r, n) for r in table.arms[arm].values()) / 1e12, table, arm, n))
        x = axis("TFLOPs so far", zero=True)
        drawn.append((_numbered("cost", part), "Hard accuracy on fresh questions, by cost", _lines(shown, rows, x)))
    return drawn


def _numbered(name: str, part: int) -> str:
    return f"{name}-{part + 1}" if part else name


def _lines(shown: list[str], rows: list[dict[str, Any]], x: Spec) -> Spec:
    series = dict(zip(shown, COLOURS, strict=False))
    return lines(rows, x, axis("hard accuracy", percent=True), series, band=True)


def _depth(table: Table, arm: str) -> int:
    return min(len(r["iterations"]) for r in table.arms[arm].values())


def _point(x: float, table: Table, arm: str, n: int) -> dict[str, Any]:
    """Mean and 95 % interval over seeds."""
    mean, low, high = stats.t_interval([table.accuracy(r, n, "hard") for r in table.arms[arm].values()])
    return {"x": x, "y": mean, "s": arm, "low": low if math.isfinite(low) else mean, "high": high if math.isfinite(high) else mean}

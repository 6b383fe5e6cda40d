"""Figures as files for papers: `gsi report RUN --figures DIR` writes every plot as SVG and PNG, with its rows beside it as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gsi.report.parts import Cell, Figure
from gsi.report.plots import for_files
from gsi.types import GsiError

WIDTH, HEIGHT = 440, 260  # pixels of the plotting area; PNG at twice that


def write_figures(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Writes NAME.svg, NAME.png and NAME.csv for every (run name, figure). Returns what was written. Raises GsiError where it cannot."""
    import vl_convert

    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for run, figure in figures:
            name = "".join(c if c.isalnum() or c in "-_" else "_" for c in f"{run}-{figure.id}" if c.isprintable())[:120]
            spec = for_files(figure.spec | {"title": figure.title, "width": WIDTH, "height": HEIGHT})
            for suffix, made in (("svg", vl_convert.vegalite_to_svg(spec).encode()), ("png", vl_convert.vegalite_to_png(spec, scale=2))):
                written.append(folder / f"{name}.{suffix}")
                written[-1].write_bytes(made)
            written.append(folder / f"{name}.csv")
            with written[-1].open("w", newline="", encoding="utf-8") as f:
                out = csv.writer(f)
                out.writerow(figure.table.head.split("|"))
                out.writerows([_plain(cell) for cell in row] for row in figure.table.rows)
    except OSError as e:
        raise GsiError(f"report: {folder} cannot be written: {e.strerror}; choose another --figures") from e
    return written


def _plain(cell: Any) -> Any:
    if isinstance(cell, Cell):
        return "" if cell.value is None else cell.value
    text = "" if cell is None else str(cell)
    return f"'{text}" if text[:1] in "=+-@" else text  # a spreadsheet would take it for a formula

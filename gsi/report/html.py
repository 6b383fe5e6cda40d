"""`gsi report`: one self-contained HTML file, written from the run folders alone."""

from __future__ import annotations

from pathlib import Path


def write_report(runs: list[Path], output: Path) -> Path:
    raise NotImplementedError

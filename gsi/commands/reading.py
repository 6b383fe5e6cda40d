"""`gsi report`, `view`, `compare` and `status`: what runs say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gsi.commands import Add


def add(command: Add) -> None:
    p = command("report", _report, "a self-contained HTML report from the run folders alone")
    p.add_argument("runs", nargs="+", metavar="RUN")
    p.add_argument("--output", help="file (default: RUN/report.html of the first run)")
    p.add_argument("--figures", metavar="DIR", help="also write every plot into this folder, as SVG, PNG and CSV")

    p = command("view", _view, "a local web page over runs, which follows a live one; reads only")
    p.add_argument("folder", help="run folder, or one that holds runs")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    p.add_argument("--port", type=int, default=8765, help="0 = any that is free (default: 8765)")

    p = command("compare", _compare, "runs side by side, with intervals")
    p.add_argument("runs", nargs="+", metavar="RUN")
    p.add_argument("--controls", action="store_true", help="first run the control arms of the first run, in RUN-controls/, and add them")

    p = command("status", _status, "where a run is")
    p.add_argument("run", help="run folder")


def _report(args: argparse.Namespace) -> None:
    runs = [Path(r) for r in args.runs]
    write_report(runs, Path(args.output) if args.output else runs[0] / "report.html", args.figures)


def write_report(runs: list[Path], output: Path, figures: str | None = None) -> None:
    from gsi.report import html

    print(f"report: {html.write_report(runs, output, Path(figures) if figures else None)}", file=sys.stderr)


def _view(args: argparse.Namespace) -> None:
    from gsi.report.view import serve

    serve(Path(args.folder), args.host, args.port, said=lambda text: print(text, file=sys.stderr, flush=True))


def _compare(args: argparse.Namespace) -> None:
    from gsi.report.terminal import compare

    runs = [Path(r) for r in args.runs]
    if args.controls:
        from gsi.lab.control_runs import run_controls

        runs += run_controls(runs[0], lambda text: print(text, flush=True))
    compare(runs)


def _status(args: argparse.Namespace) -> None:
    from gsi.report.terminal import status

    status(Path(args.run))

"""The command `gsi`. Exit codes: 0 done, 1 a bug, 2 something to fix (config, data, model), 3 nothing accepted, 130 interrupted."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import gsi
from gsi.commands import data, exchange, grading, measuring, models, reading, running, upkeep
from gsi.faults import explained
from gsi.interrupts import EXIT_CODE, GO_ON, interruptible
from gsi.types import GsiError


def main(argv: Sequence[str] | None = None) -> int:
    _speak_utf8(argv is None)
    parser = make_parser()
    if argv == [] or (argv is None and len(sys.argv) == 1):
        parser.print_help()
        return 2
    args, rest = parser.parse_known_args(argv)
    # overrides may stand behind options, which argparse alone does not allow
    if rest and (not hasattr(args, "overrides") or any(r.startswith("-") or "=" not in r for r in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides += rest
    if getattr(args, "json", False):  # JSON is UTF-8, whatever the terminal
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8")
    try:
        with interruptible(), explained(Path.cwd()):
            return args.command(args) or 0
    except GsiError as e:
        print(f"gsi: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print(f"\ngsi: interrupted; {GO_ON}", file=sys.stderr)
        return EXIT_CODE
    except BrokenPipeError:
        return 1


def _speak_utf8(own: bool) -> None:
    """Files, paths and children are UTF-8 under any locale; what a terminal cannot show is shown as an escape, never a crash.

    `own`: this process is ours alone, so it may be started again in Python's UTF-8 mode, the only way to change the encoding of paths.
    """
    if own and sys.getfilesystemencoding() != "utf-8":
        env = {"PYTHONIOENCODING": sys.stdout.encoding if sys.stdout else "ascii", **os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [os.fsencode(word) for word in (sys.executable, "-X", "utf8", "-m", "gsi", *sys.argv[1:])], env)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gsi", description="Guided self-improvement for language models.")
    parser.add_argument("--version", action="version", version=f"gsi {gsi.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    for group in (running, grading, exchange, reading, data, measuring, models, upkeep):  # in the order of the help
        group.add(command)
    return parser

"""`gsi schema`, `completion`, `doctor` and `env`: what editors, shells, damaged runs and bug reports need."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gsi.commands import Add


def add(command: Add) -> None:
    command("schema", _schema, "JSON schema of the config, for editors")

    p = command("completion", _completion, 'what a shell needs to complete gsi\'s commands and options: eval "$(gsi completion bash)"')
    p.add_argument("shell", choices=("bash", "zsh"))

    p = command("doctor", _doctor, "check every file of a run, and repair what can be repaired; what is damaged is kept beside it")
    p.add_argument("run", help="run folder")
    p.add_argument("--check", action="store_true", help="say what is wrong, change nothing")

    command("env", _env, "versions and hardware, for bug reports")


def _schema(args: argparse.Namespace) -> None:
    from gsi.schema import schema

    print(json.dumps(schema(), indent=1))


def _completion(args: argparse.Namespace) -> None:
    from gsi.cli import make_parser
    from gsi.completion import script

    print(script(make_parser(), args.shell))


def _doctor(args: argparse.Namespace) -> int:
    from gsi.doctor import examine

    problems, left = examine(Path(args.run), repair=not args.check, say=print)
    print("all files are whole" if not problems else f"{problems} problems found" + ("" if args.check else f", {left} left"))
    return 2 if left else 0


def _env(args: argparse.Namespace) -> None:
    from gsi.environment import lines

    for name, value in lines():
        print(f"{name}: {value}")

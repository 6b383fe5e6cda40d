"""`gsi schema`, `completion`, `doctor` and `env`: what editors, shells, damaged runs and bug reports need."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import gsi
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
    from gsi.config import Config

    schema = Config.model_json_schema(by_alias=True)
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "gsi config"} | schema, indent=1))


def _completion(args: argparse.Namespace) -> None:
    """Commands and options from the parser itself; files where neither fits."""
    from gsi.cli import make_parser

    actions = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    cases = [
        f"    {name}) words='{' '.join(o for a in sub._actions for o in a.option_strings if o.startswith('--'))}';;"
        for name, sub in actions.choices.items()
    ]
    head = "autoload -U +X bashcompinit && bashcompinit\n" if args.shell == "zsh" else ""
    print(
        head + "_gsi() {\n  local current=${COMP_WORDS[COMP_CWORD]} words\n"
        f"  if [ \"$COMP_CWORD\" = 1 ]; then words='{' '.join(actions.choices)}'; else case ${{COMP_WORDS[1]}} in\n"
        + "\n".join(cases)
        + '\n  esac; fi\n  COMPREPLY=( $(compgen -W "$words" -- "$current") )\n}\ncomplete -o default -F _gsi gsi'
    )


def _doctor(args: argparse.Namespace) -> int:
    from gsi.doctor import examine

    problems, left = examine(Path(args.run), repair=not args.check, say=print)
    print("all files are whole" if not problems else f"{problems} problems found" + ("" if args.check else f", {left} left"))
    return 2 if left else 0


def _env(args: argparse.Namespace) -> None:
    import platform

    from gsi.runfolder.versions import versions

    for name, value in {"gsi": gsi.__version__, **versions(), "platform": platform.platform(), "cores": os.cpu_count()}.items():
        print(f"{name}: {value}")
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpus: {', '.join(gpus) or 'none'}")

"""What a shell needs to complete gsi's commands, options and choices: made from the command line's own parser."""

from __future__ import annotations

import argparse


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """For bash, or for zsh through its emulation of bash's. Files are completed where nothing else fits."""
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    cases = []
    for name, sub in commands.items():
        options = [o for a in sub._actions for o in a.option_strings if o.startswith("--")]
        words = [str(c) for a in sub._actions if a.choices and not a.option_strings for c in a.choices]
        values = [
            f"      {'|'.join(a.option_strings)}) words='{' '.join(map(str, a.choices))}';;"
            for a in sub._actions
            if a.choices and a.option_strings
        ]
        cases.append(
            f"    {name}) case $previous in\n" + "\n".join([*values, f"      *) words='{' '.join(options + words)}';;"]) + "\n    esac;;"
        )
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return (
        head + "_gsi() {\n  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words\n"
        f"  if [ \"$COMP_CWORD\" = 1 ]; then words='{' '.join(commands)} --help --version'; else case ${{COMP_WORDS[1]}} in\n"
        + "\n".join(cases)
        + '\n  esac; fi\n  COMPREPLY=( $(compgen -W "$words" -- "$current") )\n}\ncomplete -o default -F _gsi gsi'
    )

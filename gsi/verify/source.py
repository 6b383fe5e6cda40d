"""Identifies the code of an own checker, so that one run's verdicts come from one checker."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any


def mark(check: str | Callable[..., Any] | None) -> str | None:
    """A hash of the checker's file (of a function given in Python: of its source), comments and layout apart; None where there is none to read."""
    try:
        text = _text(check) if isinstance(check, str) else textwrap.dedent(inspect.getsource(check)) if check else None
    except (OSError, TypeError, ValueError, ImportError):  # built in, typed at a prompt, or missing, which its loading says
        return None
    if text is None:
        return None
    try:
        code = ast.dump(ast.parse(text))
    except SyntaxError:  # a lambda inside a call
        code = text
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def _text(name: str) -> str | None:
    module = name.rpartition(":")[0]
    if module.endswith(".py"):
        return Path(module).read_text(encoding="utf-8")
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin and spec.origin.endswith(".py") else None

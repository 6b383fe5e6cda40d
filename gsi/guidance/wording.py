"""Hint templates: text with fields in braces. All other braces (LaTeX, code) are left as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gsi.types import GsiError

FIELDS = ("question", "answer", "rationale", "attempt", "feedback", "cue")
_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")


def check(template: str, kind: str, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises GsiError if the template lacks a required field or has one that this guidance cannot fill."""
    used = set(_FIELD.findall(template))
    for name in required:
        if name not in used:
            raise GsiError(f"guidance.template: {template!r} lacks {{{name}}}, which `{kind}` needs; add it or leave the template out")
    for name in sorted(used - {*required, *optional}):
        allowed = ", ".join(f"{{{f}}}" for f in (*required, *optional))
        raise GsiError(f"guidance.template: `{kind}` has nothing to put in {{{name}}}; it knows {allowed}")


def fill(template: str, **values: str) -> str:
    """Replaces the fields in one pass, so that braces inside a value are never taken for a field."""
    return _FIELD.sub(lambda m: values[m[1]], template)

"""Hint templates: text with fields in braces. All other braces (LaTeX, code) are left as they are."""

from __future__ import annotations

import re

from gsi.types import GsiError

FIELDS = ("question", "answer", "rationale", "attempt", "feedback", "cue")
_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")


# guidance -> (fields its template must have, those it may have as well)
USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "answer_driven": (("question", "answer"), ()),
    "rationale_driven": (("question", "rationale"), ("answer",)),
    "interactive": (("question", "attempt", "feedback"), ("answer",)),
    "own_correction": (("question", "attempt", "feedback"), ("answer",)),
    "cue": (("question", "cue"), ()),
}


def check(template: str, kind: str) -> None:
    """Raises GsiError if the template lacks a field that this guidance needs or has one that it cannot fill."""
    if found := fault(template, kind):
        raise GsiError(found)


def fault(template: str, kind: str, key: str = "guidance.template") -> str | None:
    """What is wrong with a template, by the config's key; None = nothing."""
    required, optional = USES[kind]
    used = set(_FIELD.findall(template))
    for name in required:
        if name not in used:
            return f"{key}: {template!r} lacks {{{name}}}, which `{kind}` needs; add it or leave the template out"
    for name in sorted(used - {*required, *optional}):
        return f"{key}: `{kind}` has nothing to put in {{{name}}}; it knows {', '.join(f'{{{f}}}' for f in (*required, *optional))}"
    return None


def fill(template: str, **values: str) -> str:
    """Replaces the fields in one pass, so that braces inside a value are never taken for a field."""
    return _FIELD.sub(lambda m: values[m[1]], template)

"""One value of a row as one field of a query. All raise GsiError with the place, the field, what was expected and what was found."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gsi.types import GsiError


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong_type(at: str, field: str, expected: str, value: Any) -> GsiError:
    shown = repr(value)
    return GsiError(
        f"{at}: field `{field}`: expected {expected}, found {type(value).__name__} {shown[:60]}{'...' if len(shown) > 60 else ''}"
    )


def text(at: str, field: str, value: Any, numbers: bool = False) -> str | None:
    if value is None:
        return None
    if numbers and (isinstance(value, int | bool) or (isinstance(value, float) and math.isfinite(value))):
        return str(value)
    if not isinstance(value, str):
        raise _wrong_type(at, field, "text or a number" if numbers else "text", value)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as e:
            raise GsiError(f"{at}: field `{field}`: character {e.start} is half a surrogate pair; fix the text") from None
    return value


def level(at: str, value: Any) -> int | None:
    """An int, or text such as `5`, `Level 5`; `Level ?` (two problems of MATH) is none; a fraction such as 5.5 is rounded down."""
    if value is None or is_int(value):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return math.floor(value)
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(?:level)?\s*(\d+|\??)(?:\.\d+)?\s*", value, re.IGNORECASE)):
        return int(match.group(1)) if match.group(1).isdigit() else None
    raise _wrong_type(at, "level", "a whole number or text such as `Level 5`", value)


def options(at: str, value: Any) -> tuple[str, ...] | None:
    """A list of texts or numbers, the same as JSON text, or a mapping with that list under `text` (ARC's `choices`)."""
    expected, found = "a list of texts, or one as JSON text", value
    if isinstance(value, str) and value.strip():
        try:
            found = json.loads(value)
        except json.JSONDecodeError:
            raise _wrong_type(at, "options", expected, value) from None
    if isinstance(found, dict) and isinstance(found.get("text"), list):
        found = found["text"]
    if found is None or found == "":
        return None
    if not isinstance(found, list | tuple):
        raise _wrong_type(at, "options", expected, value)
    return tuple(text(at, "options", option, numbers=True) or "" for option in found) or None

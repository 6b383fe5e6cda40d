"""One value of a row as one field of a query. Functions raise GsiError with the place, the field, what was expected and what was found."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gsi.types import GsiError


class LeftOut(Exception):
    """This row has no question or answer that could be used; the text says why. The row is reported and the others go on."""

    def __init__(self, reason: str, field: str = "answer"):
        super().__init__(reason)
        self.field = field


MOST = 999_999  # of levels: what reports read and the ledger's columns hold
_LEVEL = re.compile(r"\s*(?:level)?\s*(?:\??|(-?(?:\d+(?:\.\d+)?|\.\d+)))\s*", re.IGNORECASE)


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if is_int(value) and abs(value) >= 10**60:  # Python writes no number of more than 4,300 digits
        return "a number of over 60 digits"
    shown = repr(value)
    return f"{shown[:60]}{'...' if len(shown) > 60 else ''}"


def _wrong_type(at: str, field: str, expected: str, value: Any) -> GsiError:
    return GsiError(f"{at}: field `{field}`: expected {expected}, found {type(value).__name__} {_shown(value)}")


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
    """An int from 0, or text such as `5`, `Level 5`; `Level ?` (two problems of MATH) is none; a fraction such as 5.5 is rounded down."""
    number = value
    if isinstance(value, str) and (match := _LEVEL.fullmatch(value)):
        number = float(match.group(1)) if match.group(1) else None
    elif not (value is None or is_int(value) or (isinstance(value, float) and math.isfinite(value))):
        raise _wrong_type(at, "level", "a whole number or text such as `Level 5`", value)
    if number is None:
        return None
    if 0 < number < 1:
        raise GsiError(
            f"{at}: field `level`: {_shown(value)} would become 0: levels are whole numbers, larger is harder; write 0.35 as 35, or "
            "leave the column out"
        )
    if not 0 <= number < MOST + 1:
        raise GsiError(
            f"{at}: field `level`: expected 0 to {MOST:,}, found {_shown(value)}; number the levels from 0 or 1, larger is harder, or leave the column out"
        )
    return math.floor(number)


def count(at: str, field: str, value: Any) -> int | None:
    """A whole number from 0, also as a float without a fraction (a column with gaps), or none (NaN is one)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    whole = is_int(value) or (isinstance(value, float) and value.is_integer())
    if not whole or not 0 <= value < 2**63:
        raise _wrong_type(at, field, "a whole number from 0", value)
    return int(value)


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


def labels(value: Any) -> list[str]:
    """The labels of `options` where it is a mapping with a list of them (ARC's `choices`), else none."""
    found = value
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            found = json.loads(value)
        except json.JSONDecodeError:
            return []
    named = found.get("label") if isinstance(found, dict) else None
    return [str(label) for label in named] if isinstance(named, list | tuple) else []

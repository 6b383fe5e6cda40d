"""When two rationales are the same one: equal text, or equal steps (RFT, arXiv 2308.01825: equal lists of equations)."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable

_DRESS = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"<<[^<>]*>>", " "),  # GSM8K's calculator marks repeat the equation beside them
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)"),
        (r"\\(?:times|cdot)\b|×|·|∗", "*"),
        (r"\\div\b|÷", "/"),
        (r"\\(?:left|right|[,!;:$%])|[$€£%]|\\[()\[\]]", ""),
        (r"(?<=\d),(?=\d{3}(?!\d))", ""),
        (r"−|–", "-"),
        (r"(?<=[\d)])\s*x\s*(?=[\d(])", "*"),
    )
]
# a number, then operators and numbers; the bounds keep the time linear in the text
_SIDE = (
    r"(?<![\d.])[-+(]{0,6}(?:\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})(?:\s?[-+*/^()]{1,6}\s?(?:\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})|\s?\)){0,40}"
)
_WORDS = re.compile(r"(?<=\d)\s{1,3}(?!x\b)[A-Za-z][A-Za-z .']{0,60}(?=[-+*/=^)])")  # a unit between a number and what follows
_EQUATION = re.compile(rf"{_SIDE}(?:\s{{0,3}}=\s{{0,3}}{_SIDE})+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")


def text(completion: str) -> Hashable:
    """The text, white space aside."""
    return " ".join(completion.split())


def steps(completion: str) -> Hashable:
    """The equations between numbers, in order, dress and spacing aside; 5.0 is 5. Without any, the words in lower case.

    Two solutions that calculate the same things in the same order are the same path, however they are worded; another order is
    another path. Equations with unknowns are not compared, so an algebraic solution with few numeric steps is judged by those.
    """
    flat = re.sub(r"\s+", " ", completion)
    for pattern, new in _DRESS:
        flat = pattern.sub(new, flat)
    flat = _WORDS.sub(" ", flat)
    found = tuple(_NUMBER.sub(_plain, re.sub(r"\s", "", m.group())) for m in _EQUATION.finditer(flat))
    return found or " ".join(re.findall(r"\w+|[^\w\s.,;:!?]", flat.lower()))


def _plain(m: re.Match[str]) -> str:
    return f"{float(m.group()):.12g}"


SAME: dict[str, Callable[[str], Hashable]] = {"text": text, "steps": steps}


def measure(setting: bool | str) -> Callable[[str], Hashable] | None:
    """What `curate.distinct` says: when completions are the same; None = none is left out."""
    return SAME["text" if setting is True else setting] if setting else None

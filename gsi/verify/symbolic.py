"""Equality of expressions, sets, tuples, vectors, intervals, matrices and equations. Runs in a worker: sympy may take for ever.

What is compared is taken apart by `shapes.py`; the scalars inside are read by latex2sympy (what math-verify reads with, so no signals and
no `eval`) with decimals as exact fractions, and are equal when both are the same at points drawn with a fixed seed.
`math_verify.verify` is not used: it rounds to six decimals and takes a decimal for a root.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Any

from gsi.verify.latex import normal
from gsi.verify.numbers import TOLERANCE
from gsi.verify.shapes import shape


def equal(gold: str, got: str, relative: bool = False) -> bool:
    """Whether `got` states the same as `gold`. Raises ValueError where either cannot be read as mathematics, or not compared."""
    if re.search(r"\d\s*:\s*\d", gold):
        got = re.sub(r"(\d)\s+to\s+(?=\d)", r"\1:", got)
        if not re.search(r"[ap]\.?m\b", gold):
            got = re.sub(r"(?<=\d)\s*(?:\\text\{\s*)?[ap]\.?m\b\.?\s*\}?\s*$", "", got)
    if "_" in gold:
        got = re.sub(r"(\d+)\s*(?:\\text\{)?\s*\(?(?:in\s+)?base[\s-]*(\d+)[)}]*", r"\1_\2", got)
    if "\\ne" not in gold:
        got = re.sub(r"[,;]?\s*(?:\\text\{\s*(?:for|where|if|with)\s*\})?\s*[a-z]\s*\\neq?(?![a-z])\s*-?\d+\s*$", "", got) or got
    if "_" in gold + got:
        gold, got = (_BASE.sub(lambda m: f"_{_BASES[m[1].lower()]}", text) for text in (gold, got))
    try:
        return _same(shape(gold), shape(got), relative)
    except RecursionError:  # `6!!!`
        raise ValueError("too large or nested too deeply to compare") from None


_BASES = {
    word: n
    for n, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
        ]
    )
}
_BASE = re.compile(rf"_\s*\{{?\s*(?:\\(?:text|mathrm|textrm)\s*\{{)?\s*({'|'.join(_BASES)})\s*\}}*", re.IGNORECASE)


def _same(gold: tuple[Any, ...], got: tuple[Any, ...], relative: bool) -> bool:
    kind, other = gold[0], got[0]
    if other == "named" and kind != "named" and kind != "equation":
        return _same(gold, got[2], relative)
    if kind == "named" and other not in ("named", "equation"):
        return _same(gold[2], got, relative)
    if kind == "scalar" and other == "equation" and not re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", gold[1]):
        # a formula and then its value: pi r^2 = 16 pi; an equation with zero states no value
        return normal(got[2]) != "0" and _same(gold, shape(got[2]), relative)
    if kind == "scalar" and other == "equation":  # n^2 + n = n(n + 1), where both are the gold
        return all(_same(gold, shape(side), relative) for side in got[1:])
    if kind in ("named", "equation") and other in ("named", "equation"):
        if kind == other == "named" and gold[1].lower() == got[1].lower():
            return _same(gold[2], got[2], relative)
        a, b = (_expression(f"({s[-2]}) - ({s[-1]})") for s in (gold, got))
        return bool(a.free_symbols) and _proportional(a, b)
    if kind == other == "seq":
        interval = "[" in gold[1:3] or "]" in gold[1:3] or any("\\infty" in str(x) for x in gold[3:])
        if len(gold) != len(got) or (not relative and (gold[1:3] != got[1:3]) and (interval or got[1:3] != ("[", "]") or len(gold) < 6)):
            return False
        return all(_same(a, b, relative) for a, b in zip(gold[3:], got[3:], strict=True))
    if kind == "seq" and other == "list":  # 1, 2 for (1, 2): in order; x = 1, y = 2: in the order of the names
        items = got[1:]
        if all(item[0] == "named" for item in items) and len({item[1] for item in items}) == len(items):
            items = tuple(sorted(items, key=lambda item: str(item[1])))
        return (
            len(gold) - 3 == len(items)
            and (relative or gold[1:3] == ("(", ")"))
            and all(_same(a, b, relative) for a, b in zip(gold[3:], items, strict=True))
        )
    if kind == "list" and other == "seq" and all(item[0] == "named" for item in gold[1:]):
        return _same(("seq", "(", ")", *(item[2] for item in sorted(gold[1:], key=lambda item: str(item[1])))), got, relative)
    if {kind, other} <= {"set", "list", "union"} and (kind == other or "union" not in (kind, other) or len(gold) == len(got)):
        golds, gots = gold[1:], got[1:]
        return all(any(_same(a, b, relative) for b in gots) for a in golds) and all(any(_same(a, b, relative) for a in golds) for b in gots)
    if (kind in ("set", "list") and other == "scalar") or (other in ("set", "list") and kind == "scalar"):
        one, single = (gold, got) if other == "scalar" else (got, gold)
        if one is got and kind == "scalar":  # `x + 11 or 11 + x`: the same twice
            return 2 <= len(one) <= 4 and all(_same(single, part, relative) for part in one[1:])
        return len(one) == 2 and _same(one[1], single, relative)
    if kind == other == "matrix":
        return len(gold) == len(got) and gold[1] == got[1] and all(_same(a, b, relative) for a, b in zip(gold[2:], got[2:], strict=True))
    if "text" in (kind, other):
        base = re.fullmatch(r"(-?[\d.]+)_\d+", str(gold[1])) if kind == "text" else None
        return bool(gold[1] == got[1] or (base and base[1] == got[1]))  # a missing base is like a missing unit
    return kind == other == "scalar" and (normal(gold[1]) == normal(got[1]) or _close(_expression(gold[1]), _expression(got[1]), relative))


@lru_cache(maxsize=256)
def _expression(latex: str) -> Any:
    """A sympy expression; all symbols plain, `i` the imaginary unit. Raises ValueError where it cannot be read."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex

    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False)
    if re.search(r"\b[a-zA-Z]{3,}\b", re.sub(r"\\[a-zA-Z]+", " ", latex)) or re.search(r"\^\s*\{[^{}]*\^", latex):
        raise ValueError(f"words or a tower of powers: {latex[:80]!r}")
    try:
        expression = latex2sympy(normalize_latex(latex, config=config), is_real=None, normalization_config=None)
    except Exception as e:  # the parser raises bare Exception for bad syntax
        raise ValueError(f"not readable as LaTeX: {latex[:80]!r} ({type(e).__name__})") from None
    if not isinstance(expression, sympy.Expr):
        raise ValueError(f"no expression: {latex[:80]!r}")
    return expression.xreplace({s: sympy.I if s.name == "i" else sympy.Symbol(s.name) for s in expression.free_symbols})


def _points(symbols: list[Any]) -> list[dict[Any, Any]]:
    import sympy

    rng = random.Random(0)
    return [{s: sympy.Rational(rng.choice((-1, 1)) * rng.randint(3, 60), rng.randint(7, 23)) for s in symbols} for _ in range(6)]


def _close(a: Any, b: Any, relative: bool) -> bool:
    """Equal at every point where both have a value (exactly for rationals, else to 40 digits; TheoremQA within its tolerance)."""
    import sympy

    if a == b:
        return True
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    seen = 0
    for point in _points(symbols) if symbols else [{}]:
        x, y = a.xreplace(point).doit(), b.xreplace(point).doit()
        if x.is_Rational and y.is_Rational:
            if x != y and not (relative and x * y > 0 and abs(x - y) <= TOLERANCE * abs(x)):
                return False
            seen += 1
            continue
        x, y = x.evalf(60), y.evalf(60)
        if not (x.is_number and y.is_number) or not (x.is_finite and y.is_finite):
            if not symbols and x == y:
                return True
            continue
        bound = abs(x) * (sympy.Rational(TOLERANCE.numerator, TOLERANCE.denominator) if relative else sympy.Rational(1, 10**40))
        if not bool(abs(x - y) <= bound):
            return False
        seen += 1
    return seen >= (2 if symbols else 1)


def _proportional(a: Any, b: Any) -> bool:
    """Whether a = 0 and b = 0 are the same equation up to a constant factor."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    ratios = []
    for point in _points(symbols):
        x, y = a.xreplace(point).evalf(60), b.xreplace(point).evalf(60)
        if x.is_number and y.is_number and abs(x) > 1e-30 and abs(y) > 1e-30:
            ratios.append(x / y)
    return len(ratios) >= 3 and all(abs(r - ratios[0]) <= abs(ratios[0]) * 1e-40 for r in ratios)

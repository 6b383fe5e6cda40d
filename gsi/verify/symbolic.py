"""Equality of expressions, sets, tuples, vectors, intervals, matrices and equations. Runs in a worker: sympy may take for ever.

Shapes are taken apart as text; the scalars inside are read by latex2sympy (what math-verify reads with, so no signals and
no `eval`) with decimals as exact fractions, and are equal when both are the same at points drawn with a fixed seed.
`math_verify.verify` is not used: it rounds to six decimals and takes a decimal for a root.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Any

from gsi.verify.latex import as_latex, normal
from gsi.verify.numbers import TOLERANCE


def equal(gold: str, got: str, relative: bool = False) -> bool:
    """Whether `got` states the same as `gold`. Raises ValueError where either cannot be read as mathematics."""
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
    return _same(_shape(gold), _shape(got), relative)


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


# ------------------------------------------------------------------------------------------------ shapes, as nested tuples


def _split(text: str, separator: str) -> list[str]:
    """Splits at separators outside all brackets."""
    parts, depth, last = [], 0, 0
    for m in re.finditer(rf"[(\[{{]|[)\]}}]|{separator}", text):
        if m.group() in "([{":
            depth += 1
        elif m.group() in ")]}":
            depth -= 1
        elif depth == 0:
            parts.append(text[last : m.start()])
            last = m.end()
    return [p.strip() for p in (*parts, text[last:])]


def _shape(text: str) -> tuple[Any, ...]:
    text = as_latex(text)
    if len(text) > 1000 or not text:
        raise ValueError("empty or far too long for an answer")
    if text[0] == "(" and (m := re.fullmatch(r"\(\s*(\\begin\{array\}.*\\end\{array\})\s*\)", text, re.DOTALL)):
        text = m[1]
    if m := re.fullmatch(
        r"(?:(?:\w+|\\(?:mathbf|bm|mathrm|mathit)\s*\{?\s*\w\s*\}?)\s*=\s*)?\\begin\{([pbvB]?matrix|array)\}(?:\{[^}]*\})?(.*)\\end\{\1\}",
        text,
        re.DOTALL,
    ):
        rows = [r for r in re.split(r"\\\\", m[2]) if r.strip()]
        cells = [[_shape(c) for c in r.split("&")] for r in rows]
        if len(cells) == 1 or all(len(r) == 1 for r in cells):  # a vector, however it is laid out
            return ("seq", "(", ")", *(c for r in cells for c in r))
        return ("matrix", len(cells), *(c for r in cells for c in r))
    if (m := re.fullmatch(r"([^&=]*[^&=,;(\[{])\s*(\\begin\{([pbvB]?matrix)\}.*\\end\{\3\})", text, re.DOTALL)) and m[1].count("(") == m[
        1
    ].count(")"):
        inner = _shape(m[2])  # a factor before a matrix
        start = 3 if inner[0] == "seq" else 2
        return (*inner[:start], *(("scalar", f"({m[1]}) \\cdot ({c[1]})") if c[0] == "scalar" else c for c in inner[start:]))
    if vector := _in_units(text):
        return ("seq", "(", ")", *(_shape(c) for c in vector))
    if m := re.fullmatch(r"\\\{\s*[a-zA-Z]\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|\\R)\s*)?(?:\\mid|\||:)(.*)\\\}", text, re.DOTALL):
        return _shape(m[1])
    if m := re.fullmatch(r"(?:[a-zA-Z]\s*\\in\s*)?(?:\\mathbb\s*\{?R\}?|\\R)\s*(?:\\setminus|\\backslash|-)\s*\\\{([^,{}]*)\\\}", text):
        return ("union", ("seq", "(", ")", _shape("-\\infty"), _shape(m[1])), ("seq", "(", ")", _shape(m[1]), _shape("\\infty")))
    if len(pieces := _split(text, r"\\cup(?![a-z])")) > 1:
        return ("union", *(_shape(p) for p in pieces))
    if m := re.fullmatch(r"(?:[a-zA-Z]\s*\\in\s*)?(\\\{|[(\[]|\\langle)(.*)(\\\}|[)\]]|\\rangle)", text, re.DOTALL):
        inside = _split(m[2], ",")
        if _balanced(m[2]) and m[1] == "\\{":
            return ("set", *(_shape(q) for p in inside for q in _signs(p)))
        if _balanced(m[2]) and (len(inside) > 1 or m[1] == "["):
            return ("seq", m[1].replace("\\langle", "("), m[3].replace("\\rangle", ")"), *(_shape(p) for p in inside))
    parts = (
        [p for p in re.split(r"\bor\b", text) if p.strip()] if re.search(r"\bor\b", text) and re.search(r"[<>]|\\[lg]eq?\b", text) else []
    )
    if len(parts) > 1:
        return ("union", *(_shape(p) for p in parts))
    if relation := _inequality(text):
        return relation
    pieces = [q for p in _split(text, r"[,;]|\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b") if p for q in _signs(p)]
    if len(pieces) > 1:
        names = {m[1] for p in pieces if (m := re.match(r"([a-zA-Z])(?:_\{?\d\}?)?\s*=(?!=)", p))}
        if len(names) <= 1:
            pieces = [re.sub(r"^[a-zA-Z](?:_\{?\d\}?)?\s*=\s*", "", p) for p in pieces]
        return ("list", *(_shape(p) for p in pieces))
    if "\\approx" in text:
        return _shape(re.sub(r"(?<=\S)\s*\\approx.*|^\s*\\approx", "", text))
    sides = _split(text, "=")
    if len(sides) > 1:
        if re.fullmatch(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?'*(?:\s*\([a-zA-Z, ]+\))?(?:\^\{-1\}\s*\([a-zA-Z]\))?", sides[0]):
            return ("named", normal(sides[0]), _shape(sides[-1]), sides[0], sides[-1])
        if re.fullmatch(r"\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)", sides[0]):
            return _shape(sides[-1])  # (x, y) = (2, 3)
        if not re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", text):
            return _shape(sides[-1])  # a chain of arithmetic
        return ("equation", sides[0], sides[-1])
    if re.search(r"\d\s*:\s*\d|\d_\{?\d", text):
        return ("text", re.sub(r"[\s{}]", "", text))
    return ("scalar", text)


_UNIT = re.compile(r"(?:\\(?:mathbf|boldsymbol|bm|hat|vec|overrightarrow)\s*\{?\s*)+\\?([ijk])(?:math)?\b[\s}]*")


def _in_units(text: str) -> list[str] | None:
    """The coordinates of `2 \\mathbf{i} - \\mathbf{k}`; None for anything else."""
    if not re.search(r"\\(?:mathbf|boldsymbol|bm|hat|vec|overrightarrow)\b", text):
        return None
    pieces = _UNIT.split(text)  # coefficient, unit, coefficient, unit, ..., rest
    names, factors = pieces[1::2], [re.sub(r"^\+|\s|\\cdot$", "", c.strip()) for c in pieces[:-1:2]]
    if (
        not names
        or pieces[-1].strip()
        or len(set(names)) != len(names)
        or not all(pieces[i].strip()[:1] in ("+", "-") for i in range(2, len(pieces) - 1, 2))
    ):
        return None
    by_name = {n: {"": "1", "-": "-1"}.get(c, c) for n, c in zip(names, factors, strict=True)}
    return [by_name.get(n, "0") for n in ("ijk" if "k" in by_name else "ij")]


def _balanced(text: str) -> bool:
    depth = 0
    for c in re.findall(r"[()\[\]]", text):
        depth += 1 if c in "([" else -1
        if depth < 0:
            break
    # half-open intervals mix brackets, so kinds are not matched
    return depth == 0


def _signs(text: str) -> list[str]:
    return [text.replace("\\pm", "+", 1), text.replace("\\pm", "-", 1)] if text.count("\\pm") == 1 else [text]


def _inequality(text: str) -> tuple[Any, ...] | None:
    """`x \\ge 2`, `1 < x \\le 3` as the interval that they say."""
    if m := re.fullmatch(r"(?:\||\\lvert\s)\s*([a-zA-Z])\s*(?:\||\\rvert)\s*(\\leq?|\\geq?|<|>)(?![a-z])\s*(\d[^,=<>]*)", text):
        inside = m[2][-1] in "<" or m[2].startswith("\\le")
        ends = ("[", "]") if "\\" in m[2] else ("(", ")")
        if inside:
            return ("seq", *ends, _shape(f"-({m[3]})"), _shape(m[3]))
        return (
            "union",
            ("seq", "(", ends[1], _shape("-\\infty"), _shape(f"-({m[3]})")),
            ("seq", ends[0], ")", _shape(m[3]), _shape("\\infty")),
        )
    if m := re.fullmatch(r"[a-zA-Z]\s*\\neq?(?![a-z])\s*([^,=<>]+)", text):
        border = _shape(m[1])
        return ("union", ("seq", "(", ")", _shape("-\\infty"), border), ("seq", "(", ")", border, _shape("\\infty")))
    pieces = re.split(r"(\\leq?(?![a-z])|\\geq?(?![a-z])|<=|>=|<|>)", text)
    if len(pieces) not in (3, 5):
        return None
    terms, signs = [p.strip() for p in pieces[::2]], ["<" if p in ("<", "<=") or p.startswith("\\le") else ">" for p in pieces[1::2]]
    closed = [len(p) > 1 for p in pieces[1::2]]
    middle = 1 if len(terms) == 3 else (0 if re.fullmatch(r"\\?[a-zA-Z]+", terms[0]) else 1)
    if not re.fullmatch(r"\\?[a-zA-Z]+(?:\([a-z]\))?", terms[middle]) or len(set(signs)) > 1:
        return ("text", normal(text))
    if signs[0] == ">":
        terms, closed, middle = terms[::-1], closed[::-1], len(terms) - 1 - middle
    low, high = (terms[middle - 1] if middle else "-\\infty"), (terms[middle + 1] if middle + 1 < len(terms) else "\\infty")
    return (
        "seq",
        "[" if middle and closed[middle - 1] else "(",
        "]" if middle + 1 < len(terms) and closed[middle] else ")",
        _shape(low),
        _shape(high),
    )


# ------------------------------------------------------------------------------------------------ comparison


def _same(gold: tuple[Any, ...], got: tuple[Any, ...], relative: bool) -> bool:
    kind, other = gold[0], got[0]
    if other == "named" and kind != "named" and kind != "equation":
        return _same(gold, got[2], relative)
    if kind == "named" and other not in ("named", "equation"):
        return _same(gold[2], got, relative)
    if kind == "scalar" and other == "equation" and not re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", gold[1]):
        # a formula and then its value: pi r^2 = 16 pi; an equation with zero states no value
        return normal(got[2]) != "0" and _same(gold, _shape(got[2]), relative)
    if kind == "scalar" and other == "equation":  # n^2 + n = n(n + 1), where both are the gold
        return all(_same(gold, _shape(side), relative) for side in got[1:])
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

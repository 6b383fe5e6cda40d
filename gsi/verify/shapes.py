"""What mathematics states, as nested tuples: sets, tuples, vectors, intervals, matrices, equations, taken apart as text."""

from __future__ import annotations

import re
from typing import Any

from gsi.verify.latex import as_latex, normal


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


_DOUBLED = re.compile(r"\(\s*\(([^()]*)\)\s*\)")


def shape(text: str) -> tuple[Any, ...]:
    text = as_latex(text)
    while "((" in text and (fewer := _DOUBLED.sub(r"(\1)", text)) != text:  # the parser's time doubles with each pair
        text = fewer
    if len(text) > 1000 or not text:
        raise ValueError("empty or far too long for an answer")
    if text[0] in "([" and (m := re.fullmatch(r"[(\[]\s*(\\begin\{array\}.*\\end\{array\})\s*[)\]]", text, re.DOTALL)):
        text = m[1]
    if m := re.fullmatch(
        r"(?:(?:\w+|\\(?:mathbf|bm|mathrm|mathit)\s*\{?\s*\w\s*\}?)\s*=\s*)?\\begin\{([pbvB]?matrix|array)\}(?:\{[^}]*\})?(.*)\\end\{\1\}",
        text,
        re.DOTALL,
    ):
        rows = [r for r in re.split(r"\\\\", m[2]) if r.strip()]
        cells = [[shape(c) for c in r.split("&")] for r in rows]
        if len(cells) == 1 or all(len(r) == 1 for r in cells):  # a vector, however it is laid out
            return ("seq", "(", ")", *(c for r in cells for c in r))
        return ("matrix", len(cells), *(c for r in cells for c in r))
    if (m := re.fullmatch(r"([^&=]*[^&=,;(\[{])\s*(\\begin\{([pbvB]?matrix)\}.*\\end\{\3\})", text, re.DOTALL)) and m[1].count("(") == m[
        1
    ].count(")"):
        inner = shape(m[2])  # a factor before a matrix
        start = 3 if inner[0] == "seq" else 2
        return (*inner[:start], *(("scalar", f"({m[1]}) \\cdot ({c[1]})") if c[0] == "scalar" else c for c in inner[start:]))
    if vector := _in_units(text):
        return ("seq", "(", ")", *(shape(c) for c in vector))
    if m := re.fullmatch(r"\\\{\s*[a-zA-Z]\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|\\R)\s*)?(?:\\mid|\||:)(.*)\\\}", text, re.DOTALL):
        return shape(m[1])
    if m := re.fullmatch(r"(?:[a-zA-Z]\s*\\in\s*)?(?:\\mathbb\s*\{?R\}?|\\R)\s*(?:\\setminus|\\backslash|-)\s*\\\{([^,{}]*)\\\}", text):
        return ("union", ("seq", "(", ")", shape("-\\infty"), shape(m[1])), ("seq", "(", ")", shape(m[1]), shape("\\infty")))
    if len(pieces := _split(text, r"\\cup(?![a-z])")) > 1:
        return ("union", *(shape(p) for p in pieces))
    if m := re.fullmatch(r"(?:[a-zA-Z]\s*\\in\s*)?(\\\{|[(\[]|\\langle)(.*)(\\\}|[)\]]|\\rangle)", text, re.DOTALL):
        inside = _split(m[2], ",")
        if _balanced(m[2]) and m[1] == "\\{":
            return ("set", *(shape(q) for p in inside for q in _signs(p)))
        if _balanced(m[2]) and (len(inside) > 1 or m[1] == "["):
            return ("seq", m[1].replace("\\langle", "("), m[3].replace("\\rangle", ")"), *(shape(p) for p in inside))
    parts = (
        [p for p in re.split(r"\bor\b", text) if p.strip()] if re.search(r"\bor\b", text) and re.search(r"[<>]|\\[lg]eq?\b", text) else []
    )
    if len(parts) > 1:
        return ("union", *(shape(p) for p in parts))
    if relation := _inequality(text):
        return relation
    pieces = [q for p in _split(text, r"[,;]|\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b") if p for q in _signs(p)]
    if len(pieces) > 1:
        names = {m[1] for p in pieces if (m := re.match(r"([a-zA-Z])(?:_\{?\d\}?)?\s*=(?!=)", p))}
        if len(names) <= 1:
            pieces = [re.sub(r"^[a-zA-Z](?:_\{?\d\}?)?\s*=\s*", "", p) for p in pieces]
        return ("list", *(shape(p) for p in pieces))
    if "\\approx" in text:
        return shape(re.sub(r"(?<=\S)\s*\\approx.*|^\s*\\approx", "", text))
    sides = _split(text, "=")
    if len(sides) > 1:
        if re.fullmatch(
            r"(?:\\?[a-zA-Z]+|\\(?:mathbf|vec|bm|boldsymbol|overrightarrow)\s*\{?\s*\w\s*\}?)(?:_\{?\w+\}?)?'*(?:\s*\([a-zA-Z, ]+\))?(?:\^\{-1\}\s*\([a-zA-Z]\))?",
            sides[0],
        ):
            return ("named", normal(sides[0]), shape(sides[-1]), sides[0], sides[-1])
        if re.fullmatch(r"\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)", sides[0]):
            return shape(sides[-1])  # (x, y) = (2, 3)
        if not re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", text):
            return shape(sides[-1])  # a chain of arithmetic
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
            return ("seq", *ends, shape(f"-({m[3]})"), shape(m[3]))
        return (
            "union",
            ("seq", "(", ends[1], shape("-\\infty"), shape(f"-({m[3]})")),
            ("seq", ends[0], ")", shape(m[3]), shape("\\infty")),
        )
    if m := re.fullmatch(r"[a-zA-Z]\s*\\neq?(?![a-z])\s*([^,=<>]+)", text):
        border = shape(m[1])
        return ("union", ("seq", "(", ")", shape("-\\infty"), border), ("seq", "(", ")", border, shape("\\infty")))
    pieces = re.split(r"(\\leq?(?![a-z])|\\geq?(?![a-z])|<=|>=|<|>)", text)
    if len(pieces) not in (3, 5):
        return None
    terms, signs = [p.strip() for p in pieces[::2]], ["<" if p in ("<", "<=") or p.startswith("\\le") else ">" for p in pieces[1::2]]
    closed = [len(p) > 1 for p in pieces[1::2]]
    middle = 1 if len(terms) == 3 else (0 if re.fullmatch(r"\\?[a-zA-Z]+(?:\([a-z]\))?", terms[0]) else 1)
    around = len(terms) == 3 and re.search(r"[a-z]", terms[1]) and not re.search(r"[a-zA-Z]", terms[0] + terms[2])  # 20 < x^2 + 5x < 30
    if not (around or re.fullmatch(r"\\?[a-zA-Z]+(?:\([a-z]\))?", terms[middle])) or len(set(signs)) > 1:
        return ("text", normal(text))
    if signs[0] == ">":
        terms, closed, middle = terms[::-1], closed[::-1], len(terms) - 1 - middle
    low, high = (terms[middle - 1] if middle else "-\\infty"), (terms[middle + 1] if middle + 1 < len(terms) else "\\infty")
    return (
        "seq",
        "[" if middle and closed[middle - 1] else "(",
        "]" if middle + 1 < len(terms) and closed[middle] else ")",
        shape(low),
        shape(high),
    )

"""Mathematics as a response writes it, in one spelling of LaTeX."""

from __future__ import annotations

import re

from gsi.verify.numbers import REPEATING, repeating

_FUNCTIONS = "arcsin arccos arctan sin cos tan sec csc cot ln log exp sinh cosh tanh max min gcd lcm sqrt pi infty infinity inf and or"

_STATES = r"\b(?:is|are|be|equals?|yields?|gives?|produces?|obtain|gets?|simply|hence|thus|so|therefore|giving|sums?\s+to|adds?\s+up\s+to|comes?\s+to|simplif(?:y|ies)\s+to|reduces?\s+to|becomes?)\b"
_VERB = re.compile(rf"{_STATES}|:", re.IGNORECASE)

_PLAINLY = re.compile(
    rf"\s*,?\s*(?:and|so|thus|hence|therefore)\b[^$]*{_STATES}\s+(-?\d[\d.,/]*\d|-?\d)\W*$", re.IGNORECASE
)  # ... $x^2$, and the sum is 10


def mathematics(clause: str) -> str:
    """The mathematical part of a clause: its `$...$` pieces where it has some, else the clause without the words around it."""
    clause = re.sub(
        r"^.*[,;]\s*(?:and\s+)?(?:so|thus|hence|therefore)\s+(?:[^$\\]*?\b(?:is|are|equals)\s+)?(?=[-+(\[{\d]|[a-z]\s*(?:=|[<>]|\\[lg]eq?\b))",
        "",
        clause,
    )
    clause = re.sub(
        r"\b(?:the\s+)?(square|cube)\s+root\s+of\s+(\d+)", lambda m: rf"\sqrt{'[3]' if m[1] == 'cube' else ''}{{{m[2]}}}", clause
    )
    clause = re.sub(r"^.*,\s*i\.e\.,?\s+(?=[\[(\\$\d-])", "", clause)
    clause = re.sub(
        r"^\s*since\b[^,$]*,\s*(?:we\s+(?:need|have|get)\s+)?(?=[a-z]\s*(?:=|[<>]|\\[lg]eq?\b))", "", clause, flags=re.IGNORECASE
    )
    if re.search(r"[<>]|\\[lg]eq?\b", clause):
        clause = re.sub(r"^.*\b(?:with|where|such that|satisfying|for which|for)\s+", "", clause)
    clause = re.sub(r",?[\s$]*\b(?:for|where|when|with|provided(?:\s+that)?|if)\s+(?:all\s+)?\$?\s*[a-z]\s*\\n(?:e|eq)\b[^=]*$", "", clause)
    parts = re.split(r"\$\$|(?<!\\)\$|\\\(|\\\)|\\\[|\\\]", clause)
    if len(parts) >= 3:
        if plainly := _PLAINLY.match(parts[-1]):
            return plainly[1]
        glue = [p.strip() for p in parts[2:-1:2]]
        if all(re.fullmatch(r"(?:,|;|,?\s*(?:and|or)|)", g) for g in glue):
            *before, last = parts[1::2]
            named = [re.match(r"\s*[a-zA-Z]\s*=", p) is not None for p in (*before, last)]
            if before and all("=" in p for p in (*before, last)) and all(n != named[-1] for n in named[:-1]):
                return last  # $x = 2$, $y = 5$ and $|x - y| = 3$; $x^2 = 16$ and $x = \pm 4$
            return (" or " if "or" in glue else " , ").join(p for p in parts[1::2] if p.strip())
        if re.search(r"\b(?:since|because|as)\b[^,]*$", parts[-5] if len(parts) > 5 else "") and glue[-1] == "," and "=" in parts[-2]:
            return parts[-2]  # since $0 < x < \pi$, $x = \pi / 2$
        stated = [i for i in range(2, len(parts) - 1, 2) if _VERB.search(parts[i])]
        return mathematics("$" + "$".join(parts[stated[-1] + 1 :])) if stated else parts[1]
    keep = "|".join(_FUNCTIONS.split())
    clause = re.sub(rf"^(?:(?!(?:{keep})\b)[A-Za-z']{{2,}}[\s:,]+)+", "", clause.strip())
    return re.sub(rf"(?:\s+(?!(?:{keep})\b)[A-Za-z]{{2,}}\.?)+$", "", clause)


def normal(text: str) -> str:
    """A spelling in which equal strings surely mean the same."""
    text = re.sub(r"\\(?:text|mbox|textnormal|mathrm|textbf|mathbf|textit)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", re.sub(r"\\left\b|\\right\b|(?<!\\)\\[!,;: ]", "", text))
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "", text.replace("\\%", "").replace("\\$", ""))
    text = re.sub(r"\{(\w)\}", r"\1", re.sub(r"[$\s]", "", text)).rstrip(".")
    text = text.replace("\\varnothing", "\\emptyset")
    return text.replace("{,}", ",").replace("**", "^").replace("\\leq", "\\le").replace("\\geq", "\\ge")


def as_latex(text: str) -> str:
    """Plain notation as LaTeX, units and dress off, decimals as fractions."""
    text = REPEATING.sub(repeating, text) if "overline" in text else text
    if "circ" in text:  # an angle inside a function
        text = re.sub(
            r"\\(sin|cos|tan|cot|sec|csc)\s*[({]?\s*(\d{1,4})\s*\^\s*\{?\s*\\circ\s*\}?\s*[)}]?", r"\\\1(\\frac{\2 \\pi}{180})", text
        )
    text = re.sub(r"\\log_(?:e|\{e\})\s*", r"\\ln ", text) if "log_" in text else text
    text = re.sub(r"\\phantom\s*(?:\{[^{}]*\}|-)", "", text.replace("\\!", ""))
    text = re.sub(r"(?<=[^\s,])\s*\\(?:text|mbox|textnormal)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*$", "", text)  # a unit
    text = re.sub(r"\\frac\s*(\\pi|\d)\s*(?=\w)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(
        r"\\left\b\.?|\\right\b\.?|(?<!\\)\\[!;:, ]|\\displaystyle|(?<!\\)\$|\\%|%|\\\$|\^\s*\{?\s*\\circ\s*\}?|\\quad", " ", text.strip()
    )
    text = re.sub(r"\\(?:text|mbox|textnormal)\s*\{\s*,?\s*(and|or)\s*\}", r" \1 ", text)
    text = re.sub(
        r"(?<=[\d})])\s*\\(?:text|mbox|textnormal|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?", "", re.sub(r"\\[dtc]frac", r"\\frac", text)
    )
    text = re.sub(r"\\(?:mathbf|mathrm|text|textbf)\s*\{\s*([\d.,/-]+(?:_\{?\d+\}?)?)\s*\}", r"\1", text).strip(" .,;")
    text = (
        re.sub(r"(?<=\d)(?:,|\{,\})\s*(?=\d{3}(?!\d))(?![^(\[]*[)\]])", "", text)
        if re.fullmatch(r"[^()\[\]]*", text) and ", " not in text
        else text.replace("{,}", "")
    )
    text = re.sub(r"(?<=[)\]])\s*U\s*(?=[(\[])", r" \\cup ", text)
    text = re.sub(r"\*\*", "^", text)
    text = re.sub(r"\*", r"\\cdot ", text).replace("<=", "\\le ").replace(">=", "\\ge ")
    text = re.sub(r"\^\(([^()]*)\)", r"^{\1}", re.sub(r"\^\s*(-?\d{2,}|-\d|-[a-z])(?![\d.])", r"^{\1}", text))
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\s*(\d+)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(sqrt)\s*\(", r"\\sqrt(", text)
    while m := re.search(r"\\sqrt\s*\(", text):
        depth = 0
        for i in range(m.end() - 1, len(text)):
            depth += (text[i] == "(") - (text[i] == ")")
            if depth == 0:
                break
        else:
            break
        text = f"{text[: m.start()]}\\sqrt{{{text[m.end() : i]}}}{text[i + 1 :]}"
    text = re.sub(r"(?<![\\a-zA-Z])(infinity|infty|inf|oo)\b", r"\\infty", text)
    text = re.sub(r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sin|cos|tan|sec|csc|cot|ln|log|exp|pi)(?![a-zA-Z])", r"\\\1 ", text)
    text = re.sub(r"(?<=\d)\s+x\s+(?=\d)", r"\\cdot ", text)
    return re.sub(r"(?<![\d.])(\d*)\.(\d+)(?!\d)", lambda m: f"\\frac{{{int(m[1] + m[2])}}}{{1{'0' * len(m[2])}}}", text).strip()

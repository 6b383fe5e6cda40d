"""Unicode signs, markdown and LaTeX spacing of a response, spelled one way."""

from __future__ import annotations

import re

MAX_CHARS = 20_000  # a longer response is judged by its end only

FRACTIONS = {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3"}
_TRANSLATE = str.maketrans(
    dict.fromkeys("−–—‐‑﹣－⁻", "-")
    | dict.fromkeys("⁄∕÷", "/")
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
    | {"＄": "$", "％": "%", "．": ".", "＝": "=", "＋": "+"}
    | {chr(0xFF10 + d): str(d) for d in range(10)}
    | {"×": "\\times ", "·": "\\cdot ", "∞": "\\infty ", "∪": "\\cup ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx "}
    | {"π": "\\pi ", "°": "^\\circ ", "±": "\\pm ", "√": "\\sqrt"}
    | FRACTIONS
    | {"，": ",", "：": ":", "（": "(", "）": ")", "’": "'", "“": '"', "”": '"', "´": "'", "…": "...", "∴": "\n"}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f")  # what cannot be seen
)

_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_DOTS = r"\s?(?:\.{3,}|\\ldots\b|\\dots\b|\\cdots\b)"
_RECURRING = re.compile(rf"(?<![\d.])(\d{{1,9}}\.\d{{0,6}}?)(\d{{1,6}}?)\2{{2,9}}{_DOTS}")  # 0.1666...
# the last row of a table, where it is the one with the result
_ROW = re.compile(
    r"\n\|[ *_]*([^|\n]*\b(?:total|answer|result|sum|left|remaining|final)\b[^|\n]*)\|(?:[^|\n]*\|)*?[ *_]*([^|\n]*[\w%)}$])[ *_]*\|\s*\Z",
    re.IGNORECASE,
)
_ASKED = re.compile(r"\"[^\"\n]{3,300}\?\"")
_ALIGNED = re.compile(r"\\(?:begin|end)\{(?:align(?:ed|at)?|equation|gather|split)\*?\}")
_RUNS = re.compile(r"(\s)\1{9,}")
_BOLD = re.compile(r"(?<![\w)*])\*\*(?=\S)([^*\n]*?)\*\*(?![\w(])")
# the last line, bold from end to end: an answer in large type
_BOLD_END = re.compile(r"\n[ \t]*\*\*(?!.*(?i:answer|boxed))(?=[^*\n]*\d|[^*\n]*\\|\(?[A-E]\)?\s*\*)([^*\n]{1,300})\*\*[ \t.]*\s*\Z")
_SPACING = re.compile(
    r"\\(?:blacksquare|square|qed)\b|\\left\b\.?|\\right\b\.?|(?<!\\)\\[,;: ](?![a-zA-Z])|\\displaystyle\b|\\(?:big|Big|bigg|Bigg)[lr]?\b|~"
)


def spelled(text: str) -> str:
    """Unicode signs in ASCII: `−5` as `-5`, `10⁵` as `10^{5}`, `√2` as `\\sqrt{2}`."""
    if text.isascii():
        return text
    text = re.sub(r"√\s?(\d+)", r"\\sqrt{\1}", text)
    return _RAISED.sub(lambda m: f"^{{{m[0].translate(_RAISED_DIGITS)}}}", text).translate(_TRANSLATE)


def tidy(text: str) -> str:
    """The end of a response, with unicode signs and LaTeX spacing spelled one way."""
    text = spelled(text[-MAX_CHARS:])
    if "\x1b" in text:
        text = re.sub(r"\x1b\[[0-9;]{0,20}[A-Za-z]", "", text)
    if "\\n" in text:
        text = re.sub(r"\\n(?=\d|\\n|\s|$)", "\n", text)  # a line break that was escaped once too often
    text = _RUNS.sub(r"\1\1", text.replace("\\!", ""))
    if "\\text" in text:
        text = re.sub(r"\\text\{([^{}]*\banswer\b[^{}]*)\}", r"\1", text)
    if "\\begin{" in text and _ALIGNED.search(text):
        text = re.sub(r"\\\\|&", lambda m: "\n" if m.group() != "&" else "", _ALIGNED.sub("\n", text)) if "matrix" not in text else text
    if "|" in text and (row := _ROW.search(text, max(0, len(text) - 400))):
        text = f"{text[: row.start()]}\n{row[1]}: {row[2]}"
    if '?"' in text:
        text = _ASKED.sub("", text)  # the answer to "What is 2 + 2?" is 4
    if "..." in text or "dots" in text:
        text = _RECURRING.sub(r"\1\\overline{\2}", text)
    if "therefore" in text:
        text = re.sub(r"\$\s*\\therefore\s*\$|\\therefore\b", "\n", text)
    if "**" in text:
        if bold := _BOLD_END.search(text, max(0, len(text) - 400)):
            text = f"{text[: bold.start()]}\nAnswer: {bold[1]}"
        text = _BOLD.sub(r"\1", text)
    if "=" in text or not text.isascii():
        text = re.sub(r"=\s?>|[→⇒⟹⟶]|\\(?:implies|Rightarrow|Longrightarrow)\b", "\n", text)  # an arrow starts the next statement
    if "\\\\[" in text:
        text = re.sub(r"\\\\\[\s*-?[\d.]+\s*(?:mm|cm|pt|em|ex|in)\s*\]", r"\\\\", text)  # `\\[2mm]` between the rows of a matrix
    text = re.sub(r"(?<=\d)\\ (?=[a-z]{3})", " ", _SPACING.sub(" ", text))  # 25\ clovers
    return re.sub(r"\\[dtc]frac\b", r"\\frac", text)

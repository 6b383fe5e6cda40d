"""What a response finally commits to: the last marked answer, or a later sentence that corrects it, or its last sentence.

`commitment` returns that clause as text and judges nothing: reading a number, a letter or an expression out of it, or
finding none, is the business of the task's check.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_CHARS = 20_000  # a longer response is judged by its end only
MAX_CLAUSE = 1000

_TRANSLATE = str.maketrans(
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("⁄∕÷", "/")
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
    | {"×": "\\times ", "·": "\\cdot ", "∞": "\\infty ", "∪": "\\cup ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx "}
    | {"π": "\\pi ", "°": "^\\circ ", "²": "^2", "³": "^3", "±": "\\pm ", "√": "\\sqrt", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"}
    | {"⅓": " 1/3", "⅔": " 2/3", "，": ",", "：": ":", "（": "(", "）": ")", "’": "'", "\u200b": ""}
)

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?=\{)|(?P<bare>\w))")
_MARK = re.compile(
    r"(?:####"
    r"|\b(?:answer|ans|option|choice)(?:\s+(?:choice|option))?[\s.\-]*(?=\(?(?-i:[A-E])\)?\s*(?:[.\n]|$|(?:is|as)\b|[$]?\d|rs\b))"
    r"|\b(?:answer|ans|(?:correct|right)\s+(?:option|choice))\b(?!\s*(?:choices|options)|\s*key)"
    r"[^\n.:=?!]{0,60}?(?:\bis\b|\bare\b|\bwould\s+be\b|\bmust\s+be\b|\bequals\b|[:=])"
    r")",
    re.IGNORECASE,
)
# an answer that is quoted, not given: nothing from here on counts
_QUOTED = re.compile(
    r"\b(?:reference|gold(?:en)?|expected|official|ground[- ]truth|textbook)(?:'s)?\s+(?:final\s+)?(?:answer|solution|rationale)\b"
    r"|\banswer key\b",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"(?<=[.!?]\s)(?:no|hmm+)\b(?!\s+(?:one|other|more))[\s,:;.!-]*"
    r"|\b(?:no,?\s+wait|wait|actually|correction|oops|sorry|scratch\s+that|i\s+meant?|on\s+second\s+thought|mistaken?|incorrect|wrong|"
    r"let\s+me\s+(?:re-?)?(?:check|think|do|calculate))\b[\s,:;.!-]*",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\W*(?:check|verif|note|because|since|this\b|here|where|indeed|for example|e\.g|i\.e|as\b|i hope|let me know|\[asy|\(|.*\\end\{)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\b[A-Za-z])(?<!\bsq)[.!?](?=\s|$)|(?<=\b[A-H])[.](?=\s|$)|\n+")
_LEAD = re.compile(
    r"(?:[\s:=,;>\-]*(?:therefore|thus|hence|so|then|simply|just|exactly|approximately|about|around|roughly|equal to|given by|now|that)\b"
    r"|\s*[:=]|\s*\\approx)+(?!\s*\d*\s*[-+*/])",
    re.IGNORECASE,
)

_CONCLUDES = re.compile(
    r"\W*(?:so|thus|therefore|hence|finally|in total|total|it|i|the|he|she|they|we|there)\b|^[\s$\\]*-?\d", re.IGNORECASE
)
_SAYS = re.compile(r"\d|\\\w|\$|(?-i:\b[A-E]\b)|=|\b(?:true|false)\b|^(?:yes|no)\b", re.IGNORECASE)

_SPACING = re.compile(r"\\left\b\.?|\\right\b\.?|(?<!\\)\\[,;: ](?![a-zA-Z])|\\displaystyle\b|\\(?:big|Big|bigg|Bigg)[lr]?\b|~")


def tidy(text: str) -> str:
    """The end of a response, with unicode signs and LaTeX spacing spelled one way."""
    text = text[-MAX_CHARS:].translate(_TRANSLATE)
    text = text.replace("\\!", "")
    text = _SPACING.sub(" ", text)
    return re.sub(r"\\[dtc]frac\b", r"\\frac", text)


def commitment(response: str, question: str | None, readable: Callable[[str], bool]) -> str | None:
    """The clause that states the final answer; None where there is none (empty, cut off, the question repeated).

    A sentence after the marked answer replaces it where `readable` finds an answer in that sentence. Reads the last 20,000 characters.
    """
    text = tidy(response)
    if question and len(question) > 30:
        question = tidy(question).strip()
        if len(text.strip()) > 30 and text.strip() in question:
            return None
        text = text.replace(question, "\n")
    if quoted := _QUOTED.search(text):
        text = text[: quoted.start()]
    if (
        "\n" not in text.strip()
        and len(text) <= 60
        and not re.search(r"[a-z]{2,} [a-z]{2,}|answer|boxed|####|[?=]\s*$", text, re.IGNORECASE)
        and text.strip()
    ):
        return _strip(text)  # nothing but an answer
    marked, end = _last_marked(text)
    tail, after = text[end:], text[_clause_end(text, end) :]
    if marked is not None and (found := _after_revision(marked)):
        return found
    if (revised := list(_REVISED.finditer(tail))) and (marked is not None):
        later = _last_sentence(tail[revised[-1].end() :])
        if later is None and re.match(r"\s*(?:wrong|incorrect|mistake|scratch|oops)", revised[-1].group(), re.IGNORECASE):
            return None  # taken back, nothing put in its place
        return later or marked
    if marked is None:
        return _last_sentence(text, alone=True)
    later = _last_sentence(after)
    return later if later is not None and not _ASIDE.match(later) and readable(later) else marked


def _last_marked(text: str) -> tuple[str | None, int]:
    """The last marked answer and where it ends; boxes that stand side by side are one answer."""
    best: tuple[int, int, str] | None = None
    for m in list(_MARK.finditer(text))[:-30:-1]:
        start = m.end()
        if m.group() != "####" and not text[start:].split("\n", 1)[0].strip(" *:$"):
            gap = re.match(r"[\s*:$]*", text[start:])
            start += gap.end() if gap else 0  # the answer stands on the next line
        stop = _clause_end(text, start)
        clause = _strip(text[start:stop])
        if (
            clause
            and not _BOX.search(clause)
            and "boxed" not in clause
            and re.search(r"[\w\\]", clause)
            and not re.match(r"(?:correct|right|wrong|incorrect|below|above|as follows|found|obtained|reasonable)\b", clause)
        ):
            best = (m.start(), stop, clause)
            break
    parts: list[tuple[int, int, str]] = []
    for m in list(_BOX.finditer(text))[-30:]:
        inner_end = m.end() if m.group("bare") else _closing(text, m.end())
        content = m.group("bare") or text[m.end() + 1 : inner_end - 1]
        if inner_end > m.end() - 1 and content.strip():
            parts.append((m.start(), inner_end, content.strip()))
    if parts and (best is None or parts[-1][0] > best[0]):
        first = len(parts) - 1
        joined = parts[first][2]
        while first > 0 and (
            glue := re.fullmatch(
                r"[\s$]*(,|;|,?\s*\\?(?:text\{)?\s*(?:and|or)\s*\}?)[\s$]*(?:\w\s*=\s*)?", text[parts[first - 1][1] : parts[first][0]]
            )
        ):
            first -= 1
            joined = f"{parts[first][2]} {re.sub(r'[^a-z,;]|text', '', glue.group(1))} {joined}"
        before = re.search(
            r"(\bnot\b|n't|\bmaybe|\bperhaps|\bpossibly|\bprobably)[^.\n\w]*(?:be\b|equal to\b)?[^.\n\w]*$", text[: parts[first][0]][-40:]
        )
        best = (parts[first][0], parts[-1][1], (before.group(1) + " " if before else "") + joined)
    return (best[2], best[1]) if best else (None, 0)


def _closing(text: str, start: int) -> int:
    """Index after the brace that closes the one at `start`; start where it is never closed (cut off)."""
    depth = 0
    for i in range(start, min(len(text), start + 2000)):
        depth += (text[i] == "{" and text[i - 1] != "\\") - (text[i] == "}" and text[i - 1] != "\\")
        if depth == 0:
            return i + 1
    return start


def _clause_end(text: str, start: int) -> int:
    opening = re.match(r"\s*(\$\$|\\\[|\\begin\{(\w+\*?)\})", text[start:])
    if opening:  # display mathematics may run over lines
        close = {"$$": "$$", "\\[": "\\]"}.get(opening.group(1), "\\end{" + (opening.group(2) or "") + "}")
        found = text.find(close, start + opening.end())
        if found < 0:
            return len(text)
        start = found + len(close)
        if opening.group(2) is None:
            return start
    m = _SENTENCE_END.search(text, start, start + MAX_CLAUSE)
    return m.start() if m else min(len(text), start + MAX_CLAUSE)


def _strip(clause: str) -> str:
    clause = re.sub(r"^[\s*_#:]+|[\s*_]+$", "", clause.strip())
    lead = _LEAD.match(clause)
    clause = clause[lead.end() :] if lead else clause
    return clause.strip(' \t\n*"`').rstrip(".,;:!").strip()


def _after_revision(clause: str) -> str | None:
    cues = list(_REVISED.finditer(clause))
    return _strip(clause[cues[-1].end() :]) or None if cues else None


def _last_sentence(text: str, alone: bool = False) -> str | None:
    """The last sentence that says something, as far as it can hold an answer; `alone` = the response has no marked answer at all."""
    cuts = [0, *(m.end() for m in _SENTENCE_END.finditer(text)), len(text)]
    for start, stop in zip(reversed(cuts[:-1]), reversed(cuts[1:]), strict=True):
        sentence = text[start:stop].strip(" \t\n*$\\[]()")
        if not sentence:
            continue
        if sentence.endswith(("?", "=")) or "boxed" in sentence:
            return None
        if alone or _CONCLUDES.match(sentence):
            return _strip(text[start:stop][-MAX_CLAUSE:]) if alone or _SAYS.search(sentence) else None
        return None
    return None

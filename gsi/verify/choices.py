"""Multiple choice: the letter in any usual form, or the text or value of exactly one option."""

from __future__ import annotations

import re

from gsi.types import Query, Verdict
from gsi.verify.answers import commitment
from gsi.verify.numbers import HEDGE, plain, read_number

_WRAP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_WITH_MARK = re.compile(
    r"^\W*(?:(?:option|choice|letter)\s+)?(?:\(\s*([A-Ha-h])\s*\)|([A-Ha-h])\s*[).:](?!\d))\s*(.*)$", re.DOTALL | re.IGNORECASE
)
_NAMED = re.compile(r"\b(?:option|choice)\s*:?\s*\(?([A-Ha-h])\)?(?![\w'])", re.IGNORECASE)
_BARE = re.compile(r"^[\W_]*([A-H])(?![\w'])(?=\W*$|\s*[-=,;(]|\s+\$?\d|\s+(?:because|since|as|is|with|it is|Rs)\b)")
_LETTERS = re.compile(r"\(([A-Ha-h])\)|(?<![\w(])([A-H])(?![\w'])")


def check_choice(response: str, query: Query) -> Verdict:
    """Rule: one letter, or one option's text or value. A letter and a value that contradict each other are no answer."""
    options = tuple(_bare_option(o) for o in query.options or _options(query.question))
    n = len(options) or 5
    clause = commitment(response, query.question, lambda c: choose(c, options, query.question) is not None)
    letter = choose(clause, options, query.question) if clause is not None else None
    if letter is None or ord(letter) - 65 >= n:
        return Verdict("no_answer", detail="" if clause is None else f"no single option in {clause[:80]!r}")
    return Verdict("correct" if letter == query.answer.strip(" ().").upper() else "wrong", letter)


def choose(clause: str, options: tuple[str, ...] = (), question: str = "") -> str | None:
    """The letter of the one option that a clause names."""
    text = _WRAP.sub(r"\1", clause).replace("**", "").replace("$\\", "\\").strip()
    if re.search(
        r"\b(?:either|neither|not|none of (?!the|these)|maybe|perhaps|possibly|probably|might|could be)\b|n't\b",
        re.split(r"\b(?:because|since|as)\b", re.sub(r"\bnone of the(?:se|m| above)\b", "", text))[0],
        re.IGNORECASE,
    ) and not any(_squeeze(text) == _squeeze(o) for o in options):
        return None
    letter, rest = None, ""
    if m := _WITH_MARK.match(text):
        letter, rest = (m[1] or m[2]).upper(), m[3]
    elif m := _NAMED.search(text):
        letter, rest = m[1].upper(), text[m.end() :]
    elif m := _BARE.match(text):
        letter, rest = m[1], text[m.end() :]
    elif m := re.fullmatch(r"\W*([a-h])\W*", text):
        name = m[1]
        stem = re.split(r"answer choices", question, flags=re.IGNORECASE)[0]
        if not re.search(rf"(?<![\w']){name}(?![\w'])", stem) or (name == "a" and not re.search(r"\ba\s*[-+=,*/]", stem)):
            letter = name.upper()
    elif m := re.search(r"(?<=[\s.=(])([A-H])\)?\W*$", text):  # "... = 7550.B", "so it is B"
        letter, rest = m[1], ""
        if re.search(r"\bor\b|\band\b", text[: m.start()][-6:]):
            return None
    if letter is None:
        return _by_value(text, options)
    head = re.split(r"[.;,]\s|\b(?:because|since|as|not|while)\b", rest)[0]
    if any(m[1] and m[1].upper() != letter for m in _LETTERS.finditer(head)) or re.match(r"\W*(?:or|and|,|/|&)\W*[(]?[A-Ha-h]\b", rest):
        return None
    stated = _by_value(rest.strip(" -:=,()"), options) if rest.strip(" -:=,().") else None
    return letter if stated in (None, letter) else None


def _by_value(text: str, options: tuple[str, ...]) -> str | None:
    if not options or not text:
        return None
    exact = [i for i, o in enumerate(options) if _squeeze(o) == _squeeze(text) != ""]
    if not exact:
        got = read_number(_join(text))
        if got is None or HEDGE.search(text):
            return None
        numbers = [read_number(_join(o)) for o in options]
        exact = [i for i, number in enumerate(numbers) if number and number.value == got.value]
    return chr(65 + exact[0]) if len(exact) == 1 else None


def _join(text: str) -> str:
    """Options of MathQA are spelled in pieces: `1 / 6`, `- 2`, `. 2`, `rs . 76`, `65500 $`."""
    text = re.sub(r"\brs\s*\.\s*|(?<=\d)\s*\$\s*$|\\?\$", "", plain(text), flags=re.IGNORECASE)
    return re.sub(r"^\s*-\s+(?=[\d.])", "-", re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", re.sub(r"(?<!\d)\.\s+(?=\d)", ".", text)))


def _squeeze(text: str) -> str:
    return re.sub(r"[\s$.,\\{}]", "", _join(text).lower())


def _bare_option(option: str) -> str:
    return re.sub(r"^\s*\(?[A-Ha-h]\s*\)\s*(?=\S)", "", option)


def _options(question: str) -> tuple[str, ...]:
    """The options of a question that holds them as `(A) 1 (B) 2` or `a ) 1 , b ) 2` after `Answer Choices:`."""
    parts = re.split(r"answer choices:?", question, flags=re.IGNORECASE)
    if len(parts) < 2:
        return ()
    return tuple(p.strip(" ,") for p in re.split(r"(?:^|[\s,])\(?\s*[A-Ha-h]\s*\)", parts[-1])[1:])

"""Multiple choice: the letter in any usual form, or the text or value of exactly one option."""

from __future__ import annotations

import re

from gsi.types import Query, Verdict
from gsi.verify.answers import commitment, without
from gsi.verify.asked import difference
from gsi.verify.options import by_value, squeeze
from gsi.verify.statements import as_fraction, read_number
from gsi.verify.subject import beside
from gsi.verify.tidy import spelled


def _lettered_by(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A pattern for up to eight options, A to H, and the same for more, A to J (MMLU-Pro): an `I` is a letter only where there is an option I."""
    more = pattern.replace("A-H", "A-J").replace("a-h", "a-j").replace("B-H", "B-J").replace("b-h", "b-j")
    return re.compile(pattern, flags), re.compile(more, flags)


_WRAP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_WITH_MARK = _lettered_by(
    r"^\W*(?:(?:option|choice|letter)\s+)?(?:\(\s*([A-Ha-h])\s*\)|([A-Ha-h])\s*[).:](?!\d))\s*(.*)$", re.DOTALL | re.IGNORECASE
)
_NAMED = _lettered_by(r"\b(?:(?:option|choice)\s*:?\s*\(?|(?:get|gives?|have|obtain)\s+\()([A-Ha-h])\)?(?![\w'])", re.IGNORECASE)
_BARE = _lettered_by(r"^[\W_]*([A-H])(?![\w']|\(\d)(?=\W*$|\s*[-=,;(]|\s+\$?\d|\s+(?:because|since|as|is|with|it is|Rs|answer)\b)")
_LETTERS = _lettered_by(r"\(([A-Ha-h])\)|(?<![\w(])([A-H])(?![\w'])")
_SAID_RIGHT = _lettered_by(
    r"(?:^|[\s(,])([A-Hb-h])\)?\s+(?:is|should\s+be|must\s+be|would\s+be)\s+(?:the\s+)?(?:right|correct|answer|best|true)\b|(?:(?<=\s)|^)([A-H])\s+(?:remains|is\s+left|is\s+all\s+that\s+is\s+left)\b"
)
_PICKED = re.compile(
    r"\b(?:choos(?:e|ing)|pick(?:ing)?|select(?:ing)?|go(?:ing)?\s+(?:with|for))\s+(?:option\s+)?[$(]*([A-E])\)?(?!\w|\s*(?:or|and|,)\s*[A-E]\b)"
)
_CHOSEN = _lettered_by(
    r"[,;]\s*(?:and\s+)?(?:so\s+)?(?:I\s+|we\s+)?(?:choose|pick|select)\s+(?:option\s+)?(?:\(([A-Ha-h])\)\W*$|(?-i:([A-H]))\W*$|([a-h])\s?\)(?=\s|$))",
    re.IGNORECASE,
)
_CONCLUDED = _lettered_by(
    r"\b(?:so|thus|therefore|hence)[,:\s]+(?:(?:it|the answer)(?:'s|\s+is|\s+must\s+be)\s+)?(?:option\s+)?(?:\(([A-Ha-h])\)|([A-H])|([b-h])\))\W*$",
    re.IGNORECASE,
)
_ELIMINATED = _lettered_by(r"\b(?:eliminate|rule\s+out|discard|reject|exclude|cross\s+out)\s+(?:option\s+)?\(?[A-H]\)?\W*$", re.IGNORECASE)
_OUT = _lettered_by(
    r"\(?\b[A-H]\)?\s+(?:is|are|was|were)\s+(?:clearly\s+|also\s+)?(?:wrong|incorrect|false|tempting|too\s+\w+)\b\W*(?:(?:and|so|but)\s+)?"
)
_OTHERS_OUT = re.compile(r"\s*,?\s*(?:and|while|but)\s+(?:the\s+)?(?:options?|others?|choices?)\b[^.]*\b(?:is|are)\s+not\b\W*$")
_PRAISED = re.compile(r"\s+is\s+(?:\w+\s+){0,3}?(?:right|correct|true|answer|ans|best|choice|option|closest|valid|left|one|it)\b")
_REFUSED = re.compile(
    r"\b(?:either|neither|both|not|cannot|none of (?!the|these)|maybe|perhaps|possibly|probably|might|could be)\b|n't\b",
    re.IGNORECASE,
)
_LISTED = _lettered_by(r"(?:^|\n)[ \t]*\(?[A-Ha-h]\s?[).:](?=\s)")
_LISTED_END = _lettered_by(r"(?:^|\n)[ \t]*\(?[A-Ha-h]\s?[).:]\s[^\n]*\n[ \t]*\(?[B-Hb-h]\s?[).:]\s[^\n]*$")
_NOT_BUT = _lettered_by(r"^.*\bnot\s+\(?[A-H]\)?\s+but\s+(?=\(?[A-H]\b)")  # it is not (A) but (C)
_QUOTED = _lettered_by(r"(?<![\w'])['\"`]([A-Ha-h])['\"`](?!\w)")
_NOT_THAT = _lettered_by(
    r"^(\W*(?:(?:option|choice)\s+)?\(?[A-H]\)?(?:\s*\([^()]*\))?)\s*,?\s+(?:and\s+)?(?:not|rather\s+than|instead\s+of)\s+(?:option\s+)?\(?[A-H]\)?(?:\s*\([^()]*\))?\W*$"
)
_SMALL = _lettered_by(r"\W*([a-h])\W*$")
_EQUALS = _lettered_by(r"\d\s*=\s*([a-h])\W*$")
_LAST = _lettered_by(r"(?<=[\s.=(])(?<!\\circ\s)(?<!degrees\s)([A-H])\)?\W*$")  # "... = 7550.B", "so it is B", but not 20 degrees C
_BEFORE_LAST = _lettered_by(r"\bor\b|\band\b|\b[A-H]\W*$")
_AND_ANOTHER = _lettered_by(r"\W*(?:or|and|,|/|&)\W*[(]?[A-Ha-h]\b")
_OR_ANOTHER = _lettered_by(r"\bor\s+(?:option\s+)?\(?[A-Ha-h]\s?\)")
_BEFORE_OPTION = _lettered_by(r"^\s*\(?[A-Ha-h]\s*\)\s*(?=\S)")
_BETWEEN_OPTIONS = _lettered_by(r"(?:^|[\s,])\(?\s*[A-Ha-h]\s*\)")


def check_choice(response: str, query: Query) -> Verdict:
    """Rule: one letter, or one option's text or value. A letter and a value that contradict each other are no answer."""
    options = tuple(_bare_option(spelled(o)) for o in query.options or _options(query.question))
    n = len(options) or 5
    more = n > 8
    clause = commitment(response, query.question, lambda c: choose(c, options, query.question) is not None, query.marked)
    letter = choose(clause.text, options, query.question, clause.mark) if clause is not None else None
    if (
        clause is not None
        and not clause.mark
        and _LISTED[more].match(clause.text)
        and len(_LISTED[more].findall(response)) > 2
        and _LISTED_END[more].search(response.rstrip()[-1000:])
    ):
        letter = None  # the options again
    if clause is not None and letter and not clause.mark and choose(clause.text, (), query.question, more=more) is None:  # by its value
        number = read_number(clause.text)
        if query.question and (difference(clause.text, query.question) is False or beside(clause.text, query.question, number, "")):
            letter = None
    if clause is not None and letter and not clause.mark and _repeats(clause.text, query.question):
        letter = None
    if letter is None or ord(letter) - 65 >= n:
        return Verdict("no_answer", detail=without(query) if clause is None else f"no single option in {clause.text[:80]!r}")
    return Verdict("correct" if letter == query.answer.strip(" ().").upper() else "wrong", letter)


def choose(clause: str, options: tuple[str, ...] = (), question: str = "", mark: str = "", more: bool = False) -> str | None:
    """The letter of the one option that a clause names. `mark` is what marks the clause as the answer; `more`: whether there are more than eight options."""
    more = more or len(options) > 8
    text = re.sub(r"\\[()]", "", _WRAP.sub(r"\1", clause).replace("**", "").replace("$\\", "\\")).strip()
    text = _NOT_BUT[more].sub("", text)
    text = re.sub(r"\b(is|be)(?=[A-E](?:\d|\W|$))", r"\1 ", _QUOTED[more].sub(r"\1", text))
    text = _NOT_THAT[more].sub(r"\1", text)
    text = _OTHERS_OUT.sub("", _OUT[more].sub("", re.sub(r"\s*\((?:not|rather\s+than)\b[^()]*\)\W*$", "", text, flags=re.IGNORECASE)))
    if (
        options
        and (then := re.split(r",\s*(?:so|hence|thus|therefore)\s+", text)[-1]) != text
        and any(squeeze(then) == squeeze(o) for o in options)
    ):
        text = then
    stated_part = re.split(r"\b(?:because|since|as)\b", re.sub(r"\bnone of the(?:se|m| above)\b", "", text))[0]
    if _REFUSED.search(stated_part):
        worded = {squeeze(text), squeeze(m[3]) if (m := _WITH_MARK[more].match(text)) else ""}  # `(C) Cannot be determined`
        if not any(squeeze(o) in worded for o in options):
            return None
    if mark and re.match(r"\W*(?:less|more|greater|fewer|smaller|larger|higher|lower)\s+than\b", text) and not by_value(text, options, "="):
        return None  # less than A
    if _ELIMINATED[more].search(text) or re.search(r"\bwould\s+be\b.*\bif\b", text):
        return None
    letter, rest = None, ""
    if m := _CONCLUDED[more].search(text) or _CHOSEN[more].search(text):
        return str(m[1] or m[2] or m[3]).upper()
    if m := _WITH_MARK[more].match(text):
        letter, rest = (m[1] or m[2]).upper(), m[3]
        if (
            not mark
            and (m := re.match(r"is\s+", rest))
            and not _PRAISED.match(" " + rest)
            and by_value(rest[m.end() :], options, "=") != letter
        ):
            return None  # (D) is the original price
    elif several := list(_NAMED[more].finditer(text)):
        m = (
            several[-1] if re.search(r"\bbut\b", text[several[0].end() : several[-1].start()]) else several[0]
        )  # option d, but it asks for the hens: option a
        letter, rest = m[1].upper(), text[m.end() :]
    elif m := _BARE[more].match(text):
        letter, rest = m[1], text[m.end() :]
        if letter == "A" and re.match(r"\s+\$?\d\S*\s+[a-z]", rest) and by_value(rest, options, "=") != letter:
            return None  # A 20% profit
        if re.match(r"\s*=", rest) and by_value(rest.strip(" ="), options, "=") != letter:
            return None  # E = mc^2
        if (
            not mark
            and (m := re.match(r"\s+is\s+", rest))
            and not _PRAISED.match(rest)
            and by_value(rest[m.end() :], options, "=") != letter
        ):
            return None  # D is the distance
    elif m := _SAID_RIGHT[more].search(text):
        return (m[1] or m[2]).upper()
    elif (picked := _PICKED.findall(text)) and len(set(picked)) == 1:
        return str(picked[0])
    elif m := _SMALL[more].match(text):
        stem = re.split(r"[.!]\s", re.split(r"\s*answer choices", question, flags=re.IGNORECASE)[0])[-1]  # `who is the oldest: a) c, b) a`
        named = not mark or re.search(r"\bwho(?:se)?\b|\bwhich\b", stem) or any(_SMALL[more].match(o) for o in options)
        letter = None if named and _is_name(m[1], question) and not re.search(r"[:=]\s*$|#|boxed|option|choice", mark) else m[1].upper()
    elif m := _EQUALS[more].search(text):
        letter = m[1].upper()
    elif m := _LAST[more].search(text):
        letter, rest = m[1], ""
        if _BEFORE_LAST[more].search(text[: m.start()][-6:]):
            return None
        if (
            not mark
            and re.search(r"\b(?:with|of|than|to|from|by|for|in|on)\s+$", text[: m.start()])
            and re.search(rf"(?<![\w'(]){letter}(?![\w').])", re.split(r"answer choices", question, flags=re.IGNORECASE)[0])
        ):
            return None  # compare D with B, whom the question names
    if letter is None:
        return by_value(as_fraction(text, question), options, mark)
    head = re.split(r"[.;,]\s|\b(?:because|since|as|not|while)\b", rest)[0]
    if (
        any(m[1] and m[1].upper() != letter for m in _LETTERS[more].finditer(head))
        or _AND_ANOTHER[more].match(rest)
        or _OR_ANOTHER[more].search(head)
    ):
        return None
    if not rest.strip(" -:=,()."):
        return letter
    value = rest.strip(" :=,()")
    stated = {by_value(value, options, "letter")}
    if not re.match(r"-\S", value):  # a dash and a space: a minus as MathQA spells it, or nothing
        stated.add(by_value(value.strip(" -:=,()"), options, "letter"))
    return letter if letter in stated or stated == {None} else None


def _repeats(clause: str, question: str) -> bool:
    """Whether a sentence without a result says what the question gave: `A camp has 50 children`."""
    words = re.findall(r"[a-z]+|\d[\d.,]*", clause.lower())
    numbers = [i for i, w in enumerate(words) if w[0].isdigit()]
    if len(numbers) != 1 or len(words) < 4 or "=" in clause or numbers[0] + 1 >= len(words):
        return False
    stem = re.split(r"answer choices", question, flags=re.IGNORECASE)[0].lower()
    return f" {words[numbers[0]]} {words[numbers[0] + 1]} " in " " + " ".join(re.findall(r"[a-z]+|\d[\d.,]*", stem)) + " "


def lettered(question: str) -> tuple[str, ...]:
    """The options of a question that holds them as `(a) ... (b) ...` in its text."""
    found = list(re.finditer(r"(?<![\w)])\(([a-h])\)\s+", question))
    if "".join(m[1] for m in found) not in ("ab", "abc", "abcd", "abcde"):
        return ()
    ends = [*(m.start() for m in found[1:]), len(question)]
    texts = [re.sub(r"\s*Which\s[^?]*\?\s*$", "", question[m.end() : end]) for m, end in zip(found, ends, strict=True)]
    return tuple(t.strip(" .,;\n") for t in texts)


def _is_name(letter: str, question: str) -> bool:
    """Whether the question uses a small letter as a name: `a and b can do a work in 3 days`."""
    stem = re.split(r"answer choices", question, flags=re.IGNORECASE)[0]
    return bool(re.search(rf"(?<![\w']){letter}(?![\w'])", stem)) and (
        letter != "a" or bool(re.search(r"\ba\s*[-+=,*/]|\ba and b\b", stem))
    )


def _bare_option(option: str) -> str:
    return _BEFORE_OPTION[1].sub("", option)


def _options(question: str) -> tuple[str, ...]:
    """The options of a question that holds them as `(A) 1 (B) 2` or `a ) 1 , b ) 2` after `Answer Choices:`."""
    parts = re.split(r"answer choices:?", question, flags=re.IGNORECASE)
    if len(parts) < 2:
        return ()
    return tuple(p.strip(" ,") for p in _BETWEEN_OPTIONS[1].split(parts[-1])[1:])

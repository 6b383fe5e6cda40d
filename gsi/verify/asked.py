"""Of several numbers in a sentence, the one that counts what the question asks for: `40 pies with their 120 oranges`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from gsi.verify.doubt import doubtful
from gsi.verify.numbers import NUMBER, Number, plain, value_of
from gsi.verify.statements import concluded, number_of, without_reason
from gsi.verify.words import digits

_VERBS = "did|do|does|are|is|were|was|will|would|can|could|has|have|had|must|should|may|might"
_COUNTED = re.compile(rf"\bhow\s+many\s+((?:[a-z'-]+\s+){{1,5}}?)(?=(?:{_VERBS})\b)", re.IGNORECASE)
_MONEY = re.compile(r"\bhow\s+(?:much\s+(?:money|change|profit)|many\s+dollars)\b", re.IGNORECASE)
_BETWEEN = {"more", "total", "fewer", "less", "other", "extra", "additional", "different", "of", "the", "in", "all", "altogether"}


@lru_cache(maxsize=512)
def wanted(question: str) -> tuple[str, frozenset[str]] | None:
    """The noun that is counted and all words of its phrase, stems; `how many packs of groceries did` -> pack, {pack, grocery}."""
    if _MONEY.search(question):
        return "dollar", frozenset({"dollar"})
    found = _COUNTED.findall(question)
    if not found:
        return None
    phrase = found[-1].lower().split()
    head = phrase[: phrase.index("of")] if "of" in phrase[1:] else phrase
    words = [w for w in head if w not in _BETWEEN]
    return (stem(words[-1]), frozenset(stem(w) for w in phrase if w not in _BETWEEN)) if words else None


def stem(word: str) -> str:
    return re.sub(r"ie$|y$", "i", re.sub(r"(?<!s)s$", "", word.lower()))


@lru_cache(maxsize=512)
def asking(question: str) -> str:
    """The sentence of a question that asks, without the options."""
    sentences = re.split(
        r"(?<=[.?!])(?<!\bMr.)(?<!\bMrs.)(?<!\bMs.)(?<!\bDr.)(?<!\bSt.)(?<!\bvs.)(?<!\b[A-Z].)\s+(?!\d)",
        re.split(r"\s*answer choices", question, flags=re.IGNORECASE)[0].strip(),
    )
    return next((s for s in reversed(sentences) if "?" in s), sentences[-1])


_DIFFERENCE = re.compile(r"(?:\s+[a-z]+){0,3}?\s+(?:more|fewer|less|[a-z]+er)(?:\s+[a-z]+){0,3}?\s+than\b", re.IGNORECASE)
COMPARES = re.compile(
    r"\b(?:more|fewer|less|than|difference|differs?|exceeds?|extra|additional|change)\b|\bhow\s+(?:much|many)\s+(?:[a-z]+\s+)?[a-z]{2,}er\b",
    re.IGNORECASE,
)


def difference(clause: str, question: str) -> Number | Literal[False] | None:
    """In a sentence with `$20 more than Tom`: the number, where the question asks for a difference; False where the only number is one and none is asked."""
    text = re.sub(r"\s*\([^()]*\)\W*$", "", plain(clause))
    found = list(NUMBER.finditer(text))
    apart = [m for m in found if _DIFFERENCE.match(text[m.end() :])]
    if len(apart) != 1 or doubtful(text) or "=" in text:
        return None
    if not COMPARES.search(asking(question)):
        return None if len(found) > 1 else False
    if len(found) == 1 and len(NUMBER.findall(clause)) > 1 and (value := value_of(apart[0])) is not None:
        return number_of(apart[0], value)
    asks = re.search(r"\bhow\s+(?:much|many)\s+(?:more|fewer|less|[a-z]{2,}er)\b", question, re.IGNORECASE)
    value = value_of(apart[0])
    return number_of(apart[0], value) if asks and len(found) > 1 and value is not None else None


def asked_number(clause: str, question: str) -> Number | None:
    """The number of a sentence with several that stands before the counted noun, if only one does and the question did not give it so."""
    noun = wanted(question)
    if noun is None:
        return None
    text = digits(without_reason(concluded(plain(clause))))
    found = list(NUMBER.finditer(text))
    if not 2 <= len(found) <= 6 or doubtful(text) or re.search(r"[=+*/^<>{}|\\?]|\d:\d|\d\s*-\s*\d|\bto\s+\d", text):
        return None
    head, phrase = noun
    asked = re.findall(r"[a-z]+|\d[\d.,]*", digits(question).lower())
    fits: list[tuple[int, bool]] = []
    for i, m in enumerate(found):
        after = re.split(
            r"[.,;:()]|\s(?:and|or|for|with|from|on|in|at|per|each|than)\s",
            text[m.end() : found[i + 1].start() if i + 1 < len(found) else len(text)] + " ",
        )[0]
        words = re.findall(r"[a-z]+", after.lower())[:6]
        if not words and re.search(r"\bnow\b", text[found[i - 1].end() if i else 0 : m.start()]):
            return None  # `174 books were there, and now there are 156`
        stems = {stem(w) for w in words}
        if (head == "dollar" and m["cur"]) or head in stems:
            if words and f" {m['num']} {words[0]} " in f" {' '.join(asked)} ":
                continue  # as the question has it
            fits.append((i, phrase <= stems or bool(m["cur"])))
    best = fits if len(fits) == 1 else [fit for fit in fits if fit[1]]
    if len(best) != 1 or re.search(r"[\w)]\s*-\s*$|\b[b-z]\s*$", text[: found[best[0][0]].start()]):
        return None
    value = value_of(found[best[0][0]])
    return None if value is None else number_of(found[best[0][0]], value)

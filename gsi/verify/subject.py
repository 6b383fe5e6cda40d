"""Whether a number is the one that was asked for: `36 cakes` where eggs are counted, `7 weeks` for days, `Amy is 18` where Tom's age is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from gsi.verify.asked import COMPARES, asking, stem, wanted
from gsi.verify.contrast import contrast
from gsi.verify.numbers import NUMBER, Number, plain, value_of
from gsi.verify.quantities import (
    BACK,
    COMPARED,
    CONTRARY,
    EACH,
    MEASURE,
    MONEY,
    OF_EACH,
    OPPOSITE,
    SHARE,
    TIMES,
    UNIT,
)
from gsi.verify.words import digits, in_words

_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_NO_NAME_WORDS = """A An After All And As At Before But By Each Every Find For From He Her His How If In It Its On One She Since Some The Their Then
    There They This To Two Three What When Where Which Who With Question Answer Choices Total Let We So Thus Therefore Hence Finally"""
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())
_SUBJECT = re.compile(r"\b(?:is|was|does|did|do|will|has|had|can|must|should|would)\s+([A-Z][a-z]+)\b(?!'|\s+(?:and|or|&)\b)")
_POINTS = re.compile(r"(?<![A-Za-z\\])[A-Z]{2,3}(?![A-Za-z])")
_PRICED = re.compile(
    r"\bhow\s+much\b[^?]*\b(?:costs?|pays?|spends?|earns?|charges?)\b(?!\s+in\b)|\bwhat\s+(?:is|was)\s+the\s+(?:\w+\s+)?(?:price|cost)\b",
    re.IGNORECASE,
)
_VERTEX = re.compile(r"(?:\bangle|\\angle|∠)\s*\$?([A-Z])\b")
_UNKNOWN = re.compile(r"\b(?:value\s+of|what\s+is|find|compute|solve\s+for|determine)\s+\$?([a-z])\$?(?=\s*[?.,]|\s*$)", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:he|she|they|him|her|his|them|their|I|you|we)\b", re.IGNORECASE)
_IN = re.compile(r"\b(?:in|[Uu]nit:?)\s+(V|A|W|J|N|Pa|Hz|F|C|T|m|g|s|L|K|eV|mol)\b")
_SUM_OF = re.compile(  # he gives away 12 + 8 = 20 marbles
    r"^\W*(?:(?:so|thus|therefore|hence)\W+)?(?:he|she|they|[A-Z][a-z]+)\s+(?:has\s+|have\s+)?(?:ate|eats?|gave|given?s?|sold|sells?|used|uses|lost|loses?|spent|spends?)\b[^,;]*=",
    re.IGNORECASE,
)
_TWICE = re.compile(r"\W*(?:twice|half|double|thrice)\s+(?:the|its|their)\s+([a-z]{4,})\s+(?:is|are|equals)\b", re.IGNORECASE)
_PARTS = re.compile(r"[,;]\s+(?:and\s+|while\s+|but\s+)?(?!\d)|\s+(?:and|while|whereas)\s+(?=[A-Z])")
_OPENING = re.compile(r"^\W*(?:(?:so|thus|therefore|hence|then|finally)\b\W*)?")
_ASKED_THAN = re.compile(r"\bhow\s+(?:much|many)\s+(?P<how>[a-z]+)\b(?P<one>[^.?!]*?)\bthan\b(?P<other>[^.?!]*)", re.IGNORECASE)
_SAID_THAN = re.compile(
    r"(?P<one>.*?)\b(?P<how>more|fewer|less|[a-z]{2,}er)\b(?P<what>(?:\s+[a-z]+){0,4}?)\s+than\b(?P<other>.*)", re.IGNORECASE
)


class Asked(NamedTuple):
    """What a question asks for, as far as it can be told; empty where it cannot."""

    noun: frozenset[str]  # stems of the counted phrase
    unit: tuple[str, str] | None
    counted: frozenset[str]  # stems of what the question's numbers count
    subject: frozenset[str]  # the one whose number it is
    named: frozenset[str]  # everybody in the question
    sentence: str


@lru_cache(maxsize=512)
def _asked(question: str) -> Asked:
    sentence = asking(question)
    noun = wanted(question)
    unit = next((UNIT[word] for word in (noun[0], *sorted(noun[1])) if word in UNIT), None) if noun else None
    if unit is None and (m := re.search(r"\bin\s+([a-z]+)\b(?=\s*[?,.)]|\s+(?:did|do|does|is|are|was|will)\b)", sentence, re.IGNORECASE)):
        unit = UNIT.get(stem(m[1]))
    if unit is None and re.search(r"\bhow\s+old\b", sentence, re.IGNORECASE) and not re.search(r"\b(?:month|week|day)s?\b", question):
        unit = UNIT["year"]
    text = digits(re.split(r"answer choices", question, flags=re.IGNORECASE)[0])
    counted = {stem(word) for word in re.findall(r"\d[\d.,]*\s+(?:[a-z]+ly\s+)?([a-z]{3,}s)\b", text)}
    subject = {m[1] for m in _SUBJECT.finditer(sentence)} - _NO_NAMES
    named = set(_NAME.findall(text)) - _NO_NAMES
    return Asked(noun[1] if noun else frozenset(), unit, frozenset(counted), frozenset(subject), frozenset(named), sentence)


def beside(clause: str, question: str, number: Number | None, mark: str) -> str | None:
    """Why the number of a clause is not what the question asks for; None where nothing speaks against it."""
    asked = _asked(question)
    if _other_name(clause, asked.sentence):
        return None if mark else "of something else"
    if number is None:
        return None if mark else contrast(clause, question) or _of_another(clause, asked)
    if _other_scale(clause, question):
        return "another unit"
    if not mark and (why := contrast(clause, question)):
        return why
    if "=" in clause:
        sums = not mark and _SUM_OF.match(clause)
        return "of something else" if sums and _contrary(clause, asked.sentence, CONTRARY[-1:]) else None
    text = digits(plain(clause))
    found = next((m for m in reversed(list(NUMBER.finditer(text))) if value_of(m) == number.value), None)
    after = text[found.end() :] if found else ""
    if (
        found
        and found["cur"]
        and asked.noun
        and not asked.noun & MONEY
        and not re.search(r"\b(?:cost|pay|spen|charge|price)", asked.sentence)
    ):
        return "another thing is counted"
    if found and found["cur"] and not mark and re.search(r"\b(?:what|which)\s+(?:\w+\s+)?(?:percent|%)|\bpercentage\b", asked.sentence):
        return "another thing is counted"
    if (
        found
        and not found["cur"]
        and not mark
        and _PRICED.search(asked.sentence)
        and (m := re.match(r"\s+([a-z]+s)\b", after))
        and stem(m[1]) in asked.counted - MONEY - UNIT.keys()
    ):
        return "another thing is counted"
    if found and not found["pct"] and not mark and re.search(r"\bpercent", asked.sentence):
        thing = re.match(r"\s+([a-z]+s)\b", after)
        if thing and stem(thing[1]) in asked.counted:
            return "another thing is counted"
    if m := re.match(r"\s*-?\s*(?:more\s+|other\s+|extra\s+|additional\s+|full\s+|whole\s+)?([A-Za-z]+)((?:\s+[a-z]+){0,4})", after):
        word, rest = stem(m[1]), [stem(w) for w in m[2].split()]
        unit = UNIT.get(word)
        if asked.unit and unit and unit[0] == asked.unit[0] and unit != asked.unit and not _mentions(text, asked.unit):
            return "another unit"
        if asked.unit and unit and unit[0] != asked.unit[0] and (mark or len(m[1]) > 2) and not _mentions(text, asked.unit):
            return "another unit"
        elsewhere = asked.noun and not asked.noun & {word, *rest} and "and" not in rest[:2]
        measured = asked.unit is None and asked.noun != {"dollar"} and (m[1] in MEASURE or (unit and len(m[1]) > 3))
        if elsewhere and (word in asked.counted or measured):
            return "another thing is counted"
        if word == "cent" and "$" in question and not re.search(r"\bcents?\b", question):
            return "another unit"
    if mark:
        return None
    if _of_the_story(text, after, question, asked) or _restates(text, question):
        return "of something else"
    return _of_another(clause, asked) or _shared(text, after, asked.sentence)


def _of_another(clause: str, asked: Asked) -> str | None:
    """Whether a sentence speaks of another person or quantity."""
    part = clause[max(clause.rfind(", "), clause.rfind("; ")) + 1 :]
    part = part if re.search(r"\d", part) else clause
    if asked.subject and not any(re.search(rf"\b{name}\b", clause) for name in asked.subject) and not _PRONOUN.search(part):
        names = set(_NAME.findall(part)) & asked.named
        if names and not any(name in asked.sentence for name in names):
            return "of somebody else"
    if _contrary(clause, asked.sentence):
        return "of something else"
    return "the comparison is turned round" if _turned(clause, asked.sentence) else None


def _contrary(clause: str, sentence: str, pairs: Sequence[tuple[re.Pattern[str], ...]] = CONTRARY) -> bool:
    return any(
        wish.search(sentence) and not bare.search(sentence) and contrary.search(clause) and not saved.search(clause)
        for wish, contrary, saved, bare in pairs
    )


def _of_the_story(text: str, after: str, question: str, asked: Asked) -> bool:
    """Whether a sentence gives a state or counts a thing of the question that is not asked for: `9 shells are broken` where the whole are, `25 boys` where girls are."""
    told = question.replace(asked.sentence, " ") if len(asked.sentence) < len(question) else question
    told = re.split(r"how many", told, flags=re.IGNORECASE)[0]
    thing = re.match(r"\s+(?:of\s+(?:the|them|his|her|their)\s+)?([a-z]{3,}s|(?:wo)?men|children|people)\b(?!\s+and\b)", after)
    if thing is None or not asked.noun or asked.noun & {stem(w) for w in re.findall(r"[A-Za-z]+", text)} or asked.noun <= MONEY:
        return False
    word = stem(thing[1])
    return (
        word not in UNIT
        and word not in {stem(w) for w in re.findall(r"[A-Za-z]+", asked.sentence)}
        and word in {stem(w) for w in re.findall(r"[A-Za-z]+", told)}
    )


def _restates(text: str, question: str) -> bool:
    """Whether `the erasure probability is 0.5` only says what the question gave so."""
    if (m := _TWICE.match(text)) and m[1] in asking(question) and not re.search(r"\b(?:twice|half|double|thrice)\b", asking(question)):
        return True  # twice the area is 30
    m = re.search(r"\b([a-z]{4,})\s+(?:is|was|of)\s+([$]?\d[\d.,]*)\W*$", text)
    return bool(
        m
        and len(NUMBER.findall(text)) == 1
        and re.search(rf"\b{m[1]}\s+(?:is\s+|was\s+|of\s+|=\s*)?{re.escape(m[2].rstrip('.,'))}(?![\d.]*\d)", question)
    )


def _shared(text: str, after: str, sentence: str) -> str | None:
    """Whether a number is a comparison (`$31 less`), a factor or a share (`$31 each`) though the question asks for none."""
    if TIMES.match(after) and not re.search(r"\btimes\b", sentence):
        return "a factor"
    if (
        COMPARED.match(after)
        and not COMPARES.search(sentence)
        and not re.search(r"\b(?:discount|sav|drop|decreas|increas|reduc)", sentence)
    ):
        return "a difference that was not asked for"
    if BACK.match(after) and not re.search(r"\b(?:back|change|return|refund)", sentence):
        return "of something else"
    if OF_EACH.match(after) and not re.search(r"\b(?:each|per|every|a)\b", sentence):
        return "a share"
    for m in (SHARE.match(after), EACH.match(text)):
        if (
            m
            and not re.search(r"\b(?:each|per|every|apiece|averages?|rates?|speed|one|a)\b", sentence)
            and not (m[1] and re.search(rf"\b{stem(m[1])}", sentence))
        ):
            return "a share"
    return None


def _other_scale(clause: str, question: str) -> bool:
    """Whether a value in mV answers a question that asks for V."""
    asked = _IN.search(question)
    return bool(
        asked
        and re.search(rf"\d\s*(?:\\(?:text|mathrm)\{{\s*)?(?:[mkMGnpcd]|\\mu\s*|u){asked[1]}(?![A-Za-z/])", clause)
        and not re.search(rf"\d\s*(?:\\(?:text|mathrm)\{{\s*)?{asked[1]}(?![A-Za-z])", clause)
    )


def _mentions(text: str, unit: tuple[str, str]) -> bool:
    return any(UNIT.get(stem(word)) == unit for word in re.findall(r"[A-Za-z]+", text))


def _other_name(clause: str, sentence: str) -> bool:
    """Whether a clause gives the value of another line, angle or unknown than the one that is asked for: `x = 5` for y, `CBD = 72` for `ABC`."""
    if (angle := _VERTEX.findall(sentence)) and len(set(angle)) == 1 and (said := _VERTEX.findall(clause)) and set(said).isdisjoint(angle):
        return True
    points = {"".join(sorted((p[0], p[-1]))) + p[1:-1] for p in _POINTS.findall(sentence)}
    if points and (given := _POINTS.findall(clause.rpartition("=")[0])):
        p = given[-1]
        return "".join(sorted((p[0], p[-1]))) + p[1:-1] not in points
    unknown = _UNKNOWN.search(sentence)
    if unknown is None:
        return False
    left = re.sub(r"^[\s(,:]*(?:(?:so|thus|therefore|hence|then|we\s+have)\b\W*)?|[\s$]", "", clause.replace("$", "").partition("=")[0])
    if len(left) == 1 and left.isalpha():
        return left != unknown[1]
    return bool(re.search(rf"(?<![A-Za-z\\]){unknown[1]}(?![A-Za-z])", left)) and not re.search(r"[A-Za-z]{3}|,", left)


def own_part(clause: str, question: str) -> str:
    """Of `Tom is eighteen, and Amy is six`, of `x = 3, y = 2`, the part on the one that is asked for, where every part is on one."""
    asked = _asked(question)
    if "=" in clause and (unknown := _UNKNOWN.search(asked.sentence)):
        parts = re.split(r"\s*(?:,|;|\band\b)\s*(?:and\s+)?", re.sub(r"^\W*(?:so|thus|therefore|hence|then)\b|\$", "", clause.strip()))
        names = [m[1] if (m := re.fullmatch(r"\W*([a-zA-Z])\s*=\s*[^=]+", p)) else None for p in parts]
        return parts[names.index(unknown[1])] if len(parts) > 1 and None not in names and names.count(unknown[1]) == 1 else clause
    if len(asked.subject) != 1 or len(asked.named) < 2 or COMPARES.search(asked.sentence):
        return clause
    parts = [p for p in _PARTS.split(clause) if p]
    if not all(re.search(r"\d", p) or in_words(p) is not None for p in parts):
        return clause
    names = [m[0] if (m := _NAME.match(p, _OPENING.match(p).end())) and m[0] in asked.named else None for p in parts]  # type: ignore[union-attr]
    (subject,) = asked.subject
    return parts[names.index(subject)] if len(parts) > 1 and None not in names and names.count(subject) == 1 else clause


def _turned(clause: str, sentence: str) -> bool:
    """Whether `A jumped 5 inches farther than B` answers how much farther B jumped than A."""
    asked, said = _ASKED_THAN.search(sentence), _SAID_THAN.match(clause)
    if asked is None or said is None:
        return False
    how, so = asked["how"].lower(), said["how"].lower()
    if how != so and so not in OPPOSITE.get(how, ()):
        return False
    one, other = (set(re.findall(r"[a-z]{2,}", asked[part].lower())) for part in ("one", "other"))
    both = one & other
    first, second = (set(re.findall(r"[a-z]{2,}", part.lower())) - both for part in (said["one"] + said["what"], said["other"]))
    turned = bool(first & other) and not second & (other - both) and bool(not first & (one - both) or second & (one - both))
    kept = bool(second & other) and not second & (one - both)
    return turned if how == so else kept

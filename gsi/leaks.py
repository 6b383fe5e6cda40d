"""Signs that a guided response leans on its help: it mentions the hint, states the answer before deriving it, or copies the reference.

Heuristics on text, of the part that the model generated; each says what it found, or None. What they catch and how often they
are wrong is measured in tests/test_leaks.py (planted leaks, and references that had no help); see docs/curation.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_KIND = r"(?:answer|solution|rationale|explanation|derivation|reasoning|hint|outcome)"
_SHOWN = r"(?:given|provided|supplied|stated|shown|revealed|known|reference|expected|official|sample|model|target|gold|worked|original|suggested|mentioned)"
_MENTION = re.compile(
    "|".join(
        (
            r"\b(?:the|this|that|your|a|any) (?P<hint>hints?|clues?)\b",
            r"\b(?P<reference>reference|answer key|solution key|solution manual)\b(?! (?:point|frame|angle|line|level|number|triangle|value))",
            rf"\b(?:the|this|that|your) (?:\w+ )?{_SHOWN} (?:final |correct |full )?{_KIND}(?!s? (?:choice|option))\b",
            rf"\b(?:the|this|that|your) (?:final |correct )?{_KIND} (?:that )?(?:(?:i|we) (?:was|were|am|are|have been) )?(?:is |was |has been |had been )?(?:already )?(?:given|provided|supplied|stated|shown|revealed|told|above)\b(?! by)",
            rf"\b(?:i|we) (?:already |now )?(?:know|knew|was told|were told|am told|are told|have been told|am given|are given|was given|were given) (?:already )?(?:that )?(?:the|what the|this) (?:final |correct )?{_KIND}\b",
            r"\b(?:it|this) (?:is|was) (?:already )?(?:given|stated|told|known|said) that the (?:final |correct )?(?:answer|result)\b",
            r"\b(?:know(?:ing)?|given|told|assuming|suppose) (?:that )?the (?:final |correct )?(?:answer|solution|outcome) (?:is|was|equals|must|should|will|to)\b",
            r"\bthe (?:problem|question|prompt|task|instructions?|statement) (?:says?|states?|tells us|said|stated|gives|gave|mentions?) (?:that )?(?:the )?(?:final |correct )?answer\b",
            rf"\b(?:match(?:es|ing)?|consistent with|agree(?:s|ing)? with|agreement with|in line with|according to|based on|as (?:shown|given|stated|said|explained|written|described|seen|mentioned) in|taken from|following) (?:the|this|your) (?:final |correct |full )?{_KIND}\b",
            r"\bwork(?:ing|ed)? backwards? from the (?:final |correct )?(?:answer|result)\b",
            r"\b(?:(?:my|the|your|an|this|that) (?:first |last |initial )?(?:earlier|previous|wrong|prior|incorrect)|my (?:first|initial|last)) (?P<attempt>attempts?|solution|try|response)\b",
            r"\b(?:the|my|your) (?P<teacher>teacher|tutor)(?:'s)? (?:says?|said|explain(?:s|ed)|point(?:s|ed) out|notes?|noted|mention(?:s|ed)|comments?|remarks?|feedback|advice|suggest(?:s|ed))\b",
            r"\b(?:the|your|this|that|from|using) (?P<feedback>feedback)\b",
            r"\b(?:not|without|never) (?:to )?mention(?:ing)? (?:that )?(?:the|i|we|having|it|this|being)\b",
            r"\bas if (?:i|we) (?:did not|didn'?t|do not|don'?t) (?:already )?know\b",
            r"\b(?:in|using) my own words\b",
            r"\bthe (?:final |correct )?answer (?:is|was) (?:said|told|supposed|known|meant) to be\b",
            r"\bas (?:i|we) (?:was|were|am|are|have been) (?:told|given|shown)\b",
            r"\b(?:given|provided|supplied) (?:start|opening|beginning|prefix)\b",
        )
    ),
    re.IGNORECASE,
)


def mention(text: str, question: str) -> str | None:
    """The words with which the text gives away that it had help; words that the question itself uses do not count."""
    asked = " ".join(question.lower().split())
    flat = " ".join(text.replace("’", "'").split())
    for m in _MENTION.finditer(flat):
        own = next((word for word in m.groupdict().values() if word), m.group())
        if own.lower() not in asked:
            return m.group()
    return None


# --------------------------------------------------------------------------------------- the answer before its derivation

_NUMBER = re.compile(r"[-−]?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-−]?\$?\d+(?:\.\d+)?(?:/\d+)?")
_SAYS = (
    r"(?:\b(?:answer|result|solution|total|outcome|final value)\b(?: to this| here| of this| we (?:want|need|seek))?\s*(?:will be|must be|should be|has to be|turns out to be|comes out (?:as|to)|is|equals|=|:)"
    r"|\\f?boxed\s*\{|####?|\b(?:it|this|that) (?:must|should|will|has to) (?:be|equal|come to|come out (?:as|to))"
    r"|\b(?:need|want|have|going|aim) to (?:show|get|reach|arrive at|obtain|end up with|derive|prove)(?: that)?(?: \w+){0,6}?)"
    r"(?:\s|[:$*(~]|\\[(\[]|exactly|option|choice|indeed|simply|equal to|the|number|value)*"
)
_DERIVES = re.compile(r"\d[^=\n]{0,80}[-+*/×÷x^][^=\n]{0,80}=|\\frac|\\times|=\s*\$?[-\d(]")


def early_answer(text: str, answer: str, options: Sequence[str] | None = None) -> str | None:
    """The words that announce the final value before anything is calculated, where calculations follow; else None."""
    work = _DERIVES.search(text)
    if work is None:
        return None  # nothing is calculated, so nothing comes first
    for value in _values(answer, options):
        m = re.search(_SAYS + value, text, re.IGNORECASE)
        if m and m.start() < work.start() and _DERIVES.search(text, m.end()):
            return m.group()
    return None


def _values(answer: str, options: Sequence[str] | None) -> list[str]:
    """Patterns of the answer as it may be written: a number with or without thousands commas, a letter of an option, text as it is."""
    found = [answer.strip()]
    letter = found[0].upper()
    if options and len(letter) == 1 and 0 <= (i := ord(letter) - ord("A")) < len(options):
        found.append(options[i].strip())
    patterns = []
    for value in found:
        if _NUMBER.fullmatch(value):
            digits, dot, rest = value.lstrip("$").replace(",", "").partition(".")
            body = ",?".join(re.findall(r"\d{1,3}(?=(?:\d{3})*$)", digits)) if digits.isdigit() else re.escape(digits)
            patterns.append(rf"\$?{body}{re.escape(dot + rest)}(?!\d|[.,]\d|\s*[-+*/×÷^=]\s*\d)")
        elif value:
            patterns.append(re.escape(value) + r"(?![A-Za-z0-9])")
    return patterns


# --------------------------------------------------------------------------------------- near-copies of the reference

SIZE = 3  # words of an n-gram: enough survive a word exchanged here and there
FEWEST = 12  # n-grams below which overlap says nothing: two short solutions of one question share their words by need


def copy(text: str, reference: str, most: float = 0.5) -> str | None:
    """Says how much of the text's word sequences stands in the reference too, where that is more than `most`; else None."""
    share = overlap(text, reference)
    return f"{share:.0%} of its word sequences are the reference's" if share is not None and share > most else None


def overlap(text: str, reference: str) -> float | None:
    """Share of the text's n-grams that the reference has; None for a text with fewer than `FEWEST`.

    Counted are n-grams of `SIZE` words and numbers with at least two words in them, since right solutions share their equations.
    """
    own, theirs = _grams(text), set(_grams(reference))
    return sum(g in theirs for g in own) / len(own) if len(own) >= FEWEST else None


def _grams(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?", text.lower().replace(",", ""))
    grams = (tuple(words[i : i + SIZE]) for i in range(len(words) - SIZE + 1))
    return [g for g in grams if sum(w[0].isalpha() and len(w) > 1 for w in g) >= 2]

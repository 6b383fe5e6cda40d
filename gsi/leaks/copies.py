"""Near-copies of the reference: word n-grams in common, and likeness word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

SIZE = 3  # words of an n-gram: enough survive a word exchanged here and there
FEWEST = 12  # n-grams below which overlap says nothing: two short solutions of one question share their words by need
ALIKE, SHORTEST = 0.65, 20  # difflib's ratio over words and numbers, of texts with at least so many of them


def copy(text: str, reference: str, most: float = 0.5) -> str | None:
    """Says how much of the text's word sequences stands in the reference too, where that is more than `most`, or how alike both are; else None."""
    share = overlap(text, reference)
    if share is not None and share > most:
        return f"{share:.0%} of its word sequences are the reference's"
    own, theirs = _words(text), _words(reference)
    if SHORTEST <= len(own) <= 2 * len(theirs) and (ratio := SequenceMatcher(None, own, theirs, autojunk=False).ratio()) > ALIKE:
        return f"{ratio:.0%} alike, word by word"
    return None


def overlap(text: str, reference: str) -> float | None:
    """Share of the text's n-grams that the reference has; None for a text with fewer than `FEWEST`.

    Counted are n-grams of `SIZE` words and numbers with at least two words in them, since right solutions share their equations.
    """
    own, theirs = _grams(text), set(_grams(reference))
    return sum(g in theirs for g in own) / len(own) if len(own) >= FEWEST else None


def _grams(text: str) -> list[tuple[str, ...]]:
    words = _words(text)
    grams = (tuple(words[i : i + SIZE]) for i in range(len(words) - SIZE + 1))
    return [g for g in grams if sum(w[0].isalpha() and len(w) > 1 for w in g) >= 2]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?", re.sub(r"<<[^<>]*>>", "", text).lower().replace(",", ""))

"""Test questions that are also training questions: the same text, or nearly all of it.

Two measures, of the question without its choices. `exact`: the same letters, digits and signs of arithmetic, whatever the
case, spaces and punctuation between them. `ngram`: at least `share` of the question's runs of `n` words stand in one training
question (n-gram containment); numbers and signs are words. Questions shorter than n words have the first measure only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gsi.types import Query

N, SHARE = 8, 0.8
_SAME = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/"}
)  # minus, dashes, times, dot, divided by


@dataclass(frozen=True)
class Overlap:
    """A test query and the training query it overlaps with."""

    query: Query
    train: Query
    kind: str  # exact | ngram
    share: float  # of its n-grams that stand there; 1 for exact


def words(question: str) -> list[str]:
    """Words, numbers and signs of a question in lower case, without its choices."""
    stem = question.split("Answer Choices:")[0]
    return re.findall(r"[^\W_]+|[-+*/^=<>%]", unicodedata.normalize("NFKC", stem).lower().translate(_SAME))


def overlaps(
    train: Iterable[Query], test: Sequence[Query], n: int = N, share: float = SHARE, exact_only: Collection[str] = ()
) -> list[Overlap]:
    """The test queries that are among the training queries, in the order given, each with the closest training query.

    `exact_only`: tasks compared by the first measure only (generated ones, whose few words repeat by design). Memory: one
    number per distinct n-gram of the test questions.
    """
    by_text: dict[str, Query] = {}
    wanted: dict[int, list[int]] = defaultdict(list)  # hash of an n-gram -> positions of the test queries that have it
    grams_Q: list[int] = []
    words_Q = [words(query.question) for query in test]
    for i, (query, found) in enumerate(zip(test, words_Q, strict=True)):
        grams = set() if query.task in exact_only else {hash(tuple(found[j : j + n])) for j in range(len(found) - n + 1)}
        grams_Q.append(len(grams))
        for gram in grams:
            wanted[gram].append(i)
    best: dict[int, tuple[int, Query]] = {}
    for query in train:
        found = words(query.question)
        by_text.setdefault("".join(found), query)
        hits = Counter(i for gram in {hash(tuple(found[j : j + n])) for j in range(len(found) - n + 1)} for i in wanted.get(gram, ()))
        for i, count in hits.items():
            if count > best.get(i, (0, query))[0]:
                best[i] = (count, query)
    result = []
    for i, query in enumerate(test):
        text = "".join(words_Q[i])
        if text and text in by_text:
            result.append(Overlap(query, by_text[text], "exact", 1.0))
        elif i in best and best[i][0] >= share * grams_Q[i]:
            result.append(Overlap(query, best[i][1], "ngram", best[i][0] / grams_Q[i]))
    return result

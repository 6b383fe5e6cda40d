"""Mentions of help, found by a linear model over words: wordings have no end, and a list of patterns found 71 to 79 % of those it had not seen.

A response is read in windows of `WINDOW` words, sentence by sentence. A window's features are its n-grams of words, and of words with those that
tell of help replaced by their class; each has a weight in `mentions.json`, fitted by `python -m gsi.leaks.fit`. A response mentions help
where the weights of one window sum to more than the threshold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WEIGHTS = Path(__file__).with_name("mentions.json")
WINDOW = 14  # words: a mention is short, and a long sentence around it must not outweigh it
WORDS, CLASSED = 3, 2  # longest n-grams of words, and with classes
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d[\d.,/]*|[?!():\"]")
_QUOTES = str.maketrans("’‘“”", "''\"\"")
# words that say nothing about what a question is about: they count in a response even where its question has them
_COMMON_WORDS = (
    "the a an of to in on at by for from with and or but not no is was were are be been being it this that these those i we you my our your me us "
    "he she they them his her their its as so if then than there here have has had do did does will would should could can may might must which "
    "who what when how where why because since after before"
)
_COMMON = frozenset(_COMMON_WORDS.split())
_CLASSES = {
    "HELP": "hint hints hinted clue clues tip tips pointer pointers nudge cue cues cheat spoiler spoilers guidance help helped assistance advice advised",
    "SHOWN": "solution solutions rationale explanation explanations derivation working workings outline reference references key keys sheet manual template "
    "sample model example examples walkthrough transcript draft note notes annotation memo passage excerpt prompt instructions instruction page",
    "ANSWER": "answer answers result results outcome value values number total figure target goal conclusion",
    "PERSON": "teacher teachers tutor instructor mentor coach grader marker reviewer examiner checker professor expert author user assistant student editor "
    "supervisor colleague friend somebody someone corrector judge",
    "FEEDBACK": "feedback comment comments remark remarks correction corrections corrected critique criticism review reviewed suggestion suggestions suggests "
    "suggested recommendation objection reminder reminded",
    "GIVEN": "given provided supplied shown stated told revealed known disclosed listed mentioned handed offered quoted attached included printed displayed "
    "presented announced posted indicated expected intended official gold marked desired claimed required requested asked",
    "TOLD": "says said tells explained explains pointed noted wrote written writes gave gives showed shows informed mentions",
    "TRY": "attempt attempts try tries tried submission submissions submitted effort guess response reply version round turn take",
    "WRONG": "wrong mistake mistakes error errors incorrect slip slipped flaw flawed rejected missed forgot forgotten overlooked misread failed faulty",
    "BEFORE": "previous previously earlier last first initially originally already beforehand initial prior yesterday again former old",
    "SAME": "match matches matching matched agree agrees agreeing agreement consistent confirms confirmed confirm confirming same identical equal coincides "
    "fits tallies line accordance",
    "YOU": "you your yours",
    "ME": "i my me myself mine",
    "WE": "we us our ours",
    "REDO": "redo redone redoing rework revise revised revising fix fixed fixing retry restart continue continuing continued resume resuming pick follow "
    "following followed rewrite rewritten rephrase paraphrase own copy copying",
    "THERE": "above below here there",
}
_CLASS = {word: name for name, words in _CLASSES.items() for word in words.split()}


@dataclass(frozen=True)
class Model:
    weights: dict[str, float]
    bias: float
    threshold: float

    def score(self, features: Set[str]) -> float:
        return self.bias + sum(self.weights.get(f, 0.0) for f in features)


@cache
def model() -> Model:
    """The fitted weights."""
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return Model(stored["weights"], stored["bias"], stored["threshold"])


def mention(text: str, question: str) -> str | None:
    """The window of words with which the text gives away that it had help, or None; words of the question itself do not count."""
    fitted, asked = model(), topics(question)
    return next((w for w in windows(text) if fitted.score(features(w, asked)) > fitted.threshold), None)


def windows(text: str) -> Iterator[str]:
    """The sentences; of those with more than `WINDOW` words every stretch of so many, each half a stretch behind the last."""
    for sentence in _SENTENCE.split(plain_quotes(text)):
        words = list(_WORD.finditer(sentence.lower()))
        last = len(words) - WINDOW
        for start in (*range(0, last, WINDOW // 2), last) if last > 0 else (0,):
            if stretch := words[start : start + WINDOW]:
                yield sentence[stretch[0].start() : stretch[-1].end()]


def plain_quotes(text: str) -> str:
    return text.translate(_QUOTES)


def topics(question: str) -> Set[str]:
    """The words of a question but the commonest."""
    return {w for w in _words(plain_quotes(question)) if w[0].isalpha()} - _COMMON


def features(window: str, asked: Set[str]) -> set[str]:
    """N-grams with a word in them and none of `asked`; numbers are all alike, a lone common word counts as its class only, if it has one."""
    words = ["^", *("0" if w[0].isdigit() else w for w in _words(window)), "$"]
    found = set()
    for at in range(len(words)):
        for n in range(1, WORDS + 1):
            gram = words[at : at + n]
            if len(gram) < n or not asked.isdisjoint(gram):
                break
            if n > 1 or gram[0] not in _COMMON:
                found.add(" ".join(gram))
            if n <= CLASSED and any(w in _CLASS for w in gram):
                found.add(" ".join(_CLASS.get(w, w) for w in gram))
    return {f for f in found if re.search("[a-zA-Z]", f)}


def _words(text: str) -> Iterator[str]:
    return (m.group() for m in _WORD.finditer(text.lower()))

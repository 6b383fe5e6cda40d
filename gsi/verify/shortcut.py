"""The short way for the commonest responses: a marked plain number is the last thing said."""

from __future__ import annotations

import re
from fractions import Fraction

from gsi.verify.numbers import Number
from gsi.verify.words import PARTS, VALUES

_END = re.compile(
    r"(?:####\s?|\b(?:the|final)\s+answer\s+is:?\s|\banswer:(?:\*\*)?\s?)(?P<plain>\$?(?:-?\d{1,3}(?:,\d{3})+|-?\d{1,18}(?:\.\d{1,12})?))\.?\s*\Z"
    r"|\\boxed\{(?P<box>\$?-?\d{1,18}(?:\.\d{1,12})?)\}[$.\s]*\Z",
    re.IGNORECASE,
)
# whatever could make another place of the response count; with one of these it is read the long way
_ELSEWHERE = (
    *[
        "reference",
        "gold",
        "expected",
        "official",
        "truth",
        "textbook",
        "key",
        "question",
        "problem",
        "exercise",
        "example",
        "user",
        "human",
        "instruction",
        "<",
        "not",
        "n't",
        "maybe",
        "perhaps",
        "possibly",
    ],
    *[
        "probably",
        "people",
        "students",
        "thought",
        "guess",
        "inst]",
        "express",
        "round",
        "wrong",
        "incorrect",
        "false",
        "untrue",
        "unlikely",
        "impossible",
        "suppos",
        "assum",
        "whether",
        "unless",
        "tempting",
        "naive",
    ],
    "\nq",
    "if the",
    "correct answer",
)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# a plain sentence with one number at the end of several lines: `She made $1,250 in total.`
_SENTENCE = re.compile(
    r"(?:\n|[a-z\d)]{2}(?<!hrs)(?<!lbs)(?<!Mrs)(?<!\boz)(?<!\bft)(?<!\bsq)(?<!min)(?<!\bvs)(?<!\brs)[.] )(?:(?:So|Thus|Hence|Therefore)(?=,? [A-Za-z]))?(?P<all>,? ?(?P<before>[A-Za-z][a-z]+(?: [A-Za-z]{2,15}){0,9}) "
    r"(?P<num>\$?(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,12})?)(?P<after>(?: [a-z]{2,15}){0,8}))\.\s*\Z"
)
_BOLD = re.compile(r"(?<=[a-z] )\*\*(\$?\d[^*\n]*[a-z\d])\*\*(?=\.| [a-z])")
# the words of such a sentence that may say more than that: numbers, bounds, doubt, comparisons, remarks
_MORE = _set(
    "over under above below nearly almost up between than exceed exceeds exceeding surpass surpasses twice double triple thrice half third quarter "
    "times or and to by if at most least either neither might could may been cannot never otherwise unsure no impossible extraneous because "
    "since which where rather instead given as but while whereas so thus therefore hence then simply just exactly approximately about around "
    "roughly equal now that it yes also answer ans option choice square cube root reciprocal inverse multiple power factorial logarithm digits "
    "of anything everything nothing all except see refer look false untrue negative minus plus percent cent cents per pct dozen hundred thousand "
    "million billion trillion quadrillion more less fewer round rounded rounds rounding sin cos tan sec csc cot ln log exp sqrt gcd lcm "
    "i hope let please thank thanks feel would do is happy good great have note because this the remark hint recap tip check checking verify "
    "here indeed for each every why how what when meaning leaving making giving resulting saving mod base"
)
_MORE -= _set("the is have")
_MORE |= frozenset(VALUES) | frozenset(PARTS)
# what turns the reading of any response: marks, changes of mind, checks and quotes
_TURNS = (
    "answer", "ans ", "ans:", "####", "boxed", "option", "choice", "pick", "value", "result", "actual", "correct", "wait", "oops", "sorry", "scratch", "i mean",
    "second thought", "mistake", "kidding", "let me", "hmm", "no,", "no.", "check", "verif", "expla", "reason", "justif", "rationale", "proof", "\\", "|",
    "?", "~", "...", "=>", "= >", "cent", "\x1b", "true ",
)  # fmt: skip


def plain_last_sentence(response: str) -> tuple[str, Number] | None:
    """The last sentence and its number, where it is a plain one and nothing before it can count instead; None = read it the long way."""
    if not 60 < len(response) <= 20_000 or response[-1] not in ". \n" or not response.isascii():
        return None
    tail = response[-200:]
    if "**" in response:
        if response.count("**") != 2 or (bold := _BOLD.search(tail)) is None:
            return None
        tail = f"{tail[: bold.start()]}{bold[1]}{tail[bold.end() :]}"
    m = _SENTENCE.search(tail)
    if m is None:
        return None
    if not _MORE.isdisjoint(m["before"].lower().split()) or not _MORE.isdisjoint(m["after"].split()):
        return None
    text = response.lower()
    for word in _TURNS:
        if word in text:
            return None
    for word in _ELSEWHERE:
        if word in text:
            return None
    digits = m["num"].replace(",", "")
    dollars = digits[0] == "$"
    digits = digits[dollars:]
    return m["all"].strip(), Number(Fraction(int(digits)) if digits.isdigit() else Fraction(digits), dollars=dollars)


def ends_with_number(response: str, question: str | None) -> str | None:
    """The digits of a plain number, behind its dollar sign if it has one, with a usual mark before it at the very end of a response; None = read it the long way."""
    m = _END.search(response, max(0, len(response) - 80))
    if m is None:
        return None
    text = response.lower()
    for word in _ELSEWHERE:  # a loop, for its speed
        if word in text:
            return None
    if text.count("boxed") > 1 or text.count("####") > 3 or text.count("answer") > 3:
        return None
    if m["box"] and response[: m.start()].rstrip(" $").endswith(("+", "-", "*", "/", "times", "cdot", "pm", "sqrt", "{")):
        return None  # a part of an expression
    if question and response.strip() in question:
        return None
    return (m["plain"] or m["box"]).replace(",", "")


def stated_at_the_end(response: str, question: str) -> Number | None:
    """The short way for the commonest responses: a marked plain number is the last thing said. Says the same as the long way."""
    said = ends_with_number(response, question)
    if said is None:
        return None
    digits = said.removeprefix("$")
    return Number(Fraction(int(digits) if "." not in digits else digits), dollars=digits != said)

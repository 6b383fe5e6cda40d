"""Whether an unmarked sentence speaks of something else than the question asks for: what it says is held against the words of the question.

Every rule here needs two signs: the sentence says what the question does not ask for, and leaves out what it does ask for. A sentence that
only names less than the question (`He has 20`) is an answer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from gsi.verify.asked import asking
from gsi.verify.quantities import MONEY, UNIT
from gsi.verify.roots import IDLE, content, root
from gsi.verify.statements import concluded
from gsi.verify.words import PARTS, VALUES

# what stands behind the statement, and before it, says when, why or of what
_BEHIND = re.compile(
    r"(?<=[a-z\d%)])[,;]?\s+(?:after|when|because|since|if|for|out\s+of|from|by|with|while|than|which|where|before|to|in|at|on|during|given|as|and|that|who|over|per|without)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
_WHY = re.compile(
    r"(?<=[a-z\d%)])[,;]?\s+(?:after|when|because|since|if|for|out\s+of|from|by|with|while|than|before|per|over|which|who|of)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
_AHEAD = re.compile(
    r"^\W*(?:(?:so|thus|therefore|hence|then|finally|(?:this|that|which)\s+means)\W+)?(?:that\s+)?"
    r"(?:after|when|if|since|because|with|out\s+of|of\s+the|of\s+all|for|in|at|on|during|as|from|by|before|while)\b[^,]*,\s*",
    re.IGNORECASE,
)
_CLAUSES = re.compile(
    r"(?<=[.!?;])\s+|,\s+(?:and\s+|but\s+|while\s+|so\s+|then\s+|who\s+|which\s+)?|\s+(?:and|but|while|then)\s+(?=(?:he|she|they|it|the|his|her|[A-Z\d])\b|\w+(?:ed|s)\b|gave|sold|ate|bought|spent|took|made|lost|found)"
)
_HEADING = re.compile(r"\b(?:how|what|which|who|find|calculate|determine|compute)\b", re.IGNORECASE)
_PROVIDED = re.compile(r",?\s+(?:if|given|when|assuming)\b.*$", re.DOTALL)

_ASKS_APART = re.compile(
    r"\bhow\s+much\s+(?:old|young|long|short|tall|heavi|light|fast|slow|high|low|farth|furth|bigg|larg|small|warm|cold|clos|cheap|wid)er\b|"
    r"\bhow\s+(?:much|many)\s+(?:[a-z]+\s+)?(?:more|fewer|less|[a-z]{2,}er)\b[^?]*\bthan\b|\bdifference\b",
    re.IGNORECASE,
)
_SAYS_APART = re.compile(
    r"\b(?:more|fewer|less|than|differ\w*|extra|additional|exceeds?|[a-z]{3,}er\s+than|older|younger|longer|shorter|taller|heavier|lighter|faster|slower|higher|lower|farther|further|bigger|larger|smaller|warmer|colder|closer|cheaper|by|above|below|times|ahead|advantage|gap|over|another|minus|subtract\w*)\b|\d\D{0,30}-|-\s*\$?\d",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:do|does|did|is|are|was|were|has|have|had|can|could|will|would)\s+(?:[a-z]+\s+){0,2}?not\s+([a-z]+(?:\s+[a-z]+){0,3})",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\b(?:not|no|never|without|rest|remain\w*|other|left|neither)\b|n't\b|\b(?:un|non)-?[a-z]+|\b[a-z]+less\b", re.IGNORECASE
)
_HOLDS = re.compile(r"\b(?:have|left|remain\w*|still|surviv\w+)\b", re.IGNORECASE)
_FINAL = re.compile(r"\b(?:they|together|both|combined|total|in\s+all|altogether|now|still|left|remain\w*)\b", re.IGNORECASE)
_MODAL = re.compile(r"\b(?:can|could|will|would|must|should|may)\b")
_HELD = re.compile(
    r"\b(?:has|have|had|left|leav\w+|remain\w*|still|keeps?|kept|there|is|are|was|were|now|needs?|surviv\w+|brings?|goes|more|leftover)\b",
    re.IGNORECASE,
)
_NOW = re.compile(r"\b(?:now|today|current\w*|at\s+present)\b", re.IGNORECASE)
_GONE = re.compile(
    r"\b(?:los[et]\w*|gave|gives?|giv\w+|s[eo]ld?l?s?|ate|eats?|eaten|us(?:e|es|ed)|spen[dt]s?|takes?|took|leaks?\w*|pick\w*|read)\b",
    re.IGNORECASE,
)
_REMAINS = re.compile(r"\b(?:remain(?:s|ed|ing)?|left|kept|keeps)\b", re.IGNORECASE)
_STATE = re.compile(r"\b(?:are|were|is|was)\s+([a-z]{4,})\W*$")
_STATE_ASKED = re.compile(r"\b(?:are|were|is|was)\s+(?:still\s+)?(?!there\b)([a-z]{4,})\s*\?")
_PLAIN_STATES = frozenset(("left", "needed", "required", "remaining", "available", "there", "total", "altogether", "used", "made", "sold"))
_OBJECT = re.compile(r"\b(on|for|from|in|at|by|with)\s+(?:(?:the|an?|his|her|their|each|its)\s+)?([A-Za-z]{3,})\b")
_ASKS_MORE = re.compile(r"\bhow\s+(?:many|much)\s+more\b", re.IGNORECASE)
_SAYS_MORE = re.compile(
    r"\b(?:more|another|additional\w*|extra|still|left|remain\w*|needs?|needed|short|other|rest|less|fewer|[a-z]{3,}er|than|difference)\b",
    re.IGNORECASE,
)
_WHOSE = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence)\W+)?(?:his|her|their)\s+([a-z]+)\s+(?:has|have|had|is|are|was|gets?|got|ate|eats|keeps?)\b",
    re.IGNORECASE,
)
_MUST = re.compile(r"\b(?:must|should|needs?|needed|ha(?:s|ve|d)\s+to|required?|wants?\s+to)\b", re.IGNORECASE)
_THEN = re.compile(
    r"\b(?:in|after)\s+(?:\d+|[a-z]+)\s+(?:more\s+)?(?:years?|months?|weeks?|days?|hours?)\b|\b(?:\d+|[a-z]+)\s+(?:years?|months?|weeks?|days?|hours?)\s+(?:ago|later|earlier|before|from\s+now)\b"
    r"|\b(?:last|next)\s+(?:year|month|week)\b|\bwill\s+be\b|\b(?:yesterday|tomorrow|originally|initially|at\s+first)\b",
    re.IGNORECASE,
)
_AMOUNT = re.compile(rf"\d|\b(?:{'|'.join((*VALUES, *PARTS))})\b", re.IGNORECASE)
_PERIOD = r"(second|minute|hour|day|week|month|year)"
_PERIODS = re.compile(rf"\b(?:each|per|every)\s+{_PERIOD}\b|\b(dai|week|month|year|hour)ly\b", re.IGNORECASE)
_EVERY = re.compile(rf"\b(?:each|per|every)\s+{_PERIOD}\b", re.IGNORECASE)
_JOINT = re.compile(r"\b(?:they|together|both|combined)\b", re.IGNORECASE)
# quantities: those between two bars are of one kind, a name may be of several; what is done to numbers never stands against a measure
_MEASURES = """area|perimeter circumference|volume|side length|side width breadth|side height altitude depth elevation|radius|diameter|diagonal|hypotenuse
    speed velocity|acceleration|distance displacement length height|mass weight|force|energy work heat|power|voltage|resistance|temperature|pressure|density
    frequency|wavelength|slope gradient|intercept|center centre|point coordinates vertex|variance|deviation|numerator|denominator|profit gain|loss
    discount|price cost|revenue|tax|tip|interest|principal|probability chance odds|age"""
_DONE = "sum|product|difference|quotient|remainder|average mean expected expectation|variance|deviation|median|mode|gcd gcf hcf|lcm|minimum least smallest smaller lower|maximum greatest largest larger bigger"
_KINDS: dict[str, frozenset[tuple[int, int]]] = {}
for _class, _lines in enumerate((_MEASURES, _DONE)):
    for _i, _line in enumerate(re.split(r"[|\n]", _lines)):
        for _name in _line.split():
            _KINDS[_name] = _KINDS.get(_name, frozenset()) | {(_class, _i)}
_NAMED = "|".join(name + ("" if name == "mean" else "s?") for name in _KINDS)
_QUANTITY = re.compile(rf"\b(?:{_NAMED})\b(?![\s-]+(?:{_NAMED})\b)", re.IGNORECASE)
_COMMON = re.compile(
    r"\b(?:(greatest|highest|largest)|(?:least|lowest|smallest))\s+common\s+(?:positive\s+)?(?:divisor|factor|multiple)\b", re.IGNORECASE
)
_WISH = re.compile(r"\b(?:what|find|determine|compute|calculate|evaluate|give)\b", re.IGNORECASE)
_OF = re.compile(r"\s(?:of|at|in|on|through|for|from|if|when|that|was|did)\s", re.IGNORECASE)
_STATED = re.compile(
    r"^(?P<what>[^=\d]{3,80}?)(?:\s(?:is|are|was|equals|would\s+be|comes\s+to)\b|=|:)|(?P<of>\b[a-z]+)\s+(?:of\s+)?\$?[\d(]", re.IGNORECASE
)
_ALTERED = re.compile(
    r"\b(?:perpendicular|parallel|inverse|reciprocal|opposite|complement\w*|supplement\w*|conjugate)\b",
    re.IGNORECASE,
)
_SIMPLER = re.compile(r"[^=\d]*\b(?:line|side|angle|number|value|area|probability|it|this|that)\b", re.IGNORECASE)


_UNITS = frozenset(root(word) for word in UNIT) | MONEY


class Told(NamedTuple):
    asked: str  # the part of the question that asks
    words: frozenset[str]  # what it says
    clauses: tuple[frozenset[str], ...]  # what the clauses of the rest say that give an amount
    names: frozenset[str]  # names, and what the sentences of the rest begin with: `he` may be any of them
    counted: frozenset[str]  # what its numbers are of: red and blue, of `5 red and 7 blue marbles`
    all: frozenset[str]
    parties: frozenset[str]  # names as they are written, also those of one letter


@lru_cache(maxsize=512)
def told(question: str) -> Told:
    question = re.split(r"\s*answer choices", question, flags=re.IGNORECASE)[0]
    asked = asking(question)
    rest = question.replace(asked, " ") if len(asked) < len(question) else ""
    if (m := _HEADING.search(asked)) and m.start():
        rest, asked = f"{rest} {asked[: m.start()]}", asked[m.start() :]
    if m := _PROVIDED.search(asked):
        rest, asked = f"{rest} {m[0]}", asked[: m.start()]
    parts = [content(c) for c in _CLAUSES.split(rest) if _AMOUNT.search(c)]
    names = {root(w) for w in re.findall(r"\b[A-Z][a-z]+\b", question)}
    for sentence in re.split(r"(?<=[.!?])\s+", rest):
        names |= (
            {root(w) for w in re.findall(r"[A-Za-z]+", m[0])}
            if (m := re.match(r"(?:(?:the|an?|his|her|their)\s+)?[a-z]+", sentence, re.IGNORECASE))
            else set()
        )
    counted = {root(w) for w in re.findall(r"\d\s+([a-z]{3,})", rest) if w not in IDLE} - _UNITS
    parties = re.findall(
        r"\b[A-Z][a-z]+\b(?=\s+(?:can|could|and|will|has|had|takes|took|is|was)\b)|\b[a-zA-Z]\b(?=\s+(?:can|and|takes)\b)", rest
    )
    return Told(asked, content(asked), tuple(parts), frozenset(names), frozenset(counted), content(question), frozenset(parties))


def contrast(clause: str, question: str) -> str | None:
    """Why an unmarked sentence speaks of something else; None where nothing shows it."""
    if re.search(r"\b(?:answer|correct)\b", clause, re.IGNORECASE):
        return None
    ask = told(question)
    final = _FINAL.search(clause)
    clause = _AHEAD.sub("", concluded(clause))
    words = content(clause)
    if _ASKS_APART.search(ask.asked) and not _SAYS_APART.search(clause) and re.search(r"[a-z]{3}\s*[a-z]", clause) and len(words) > 1:
        return "no comparison"
    if "=" in clause:
        return _other_quantity(clause, ask)
    if (m := _DENIED.search(ask.asked.replace("n't", " not"))) and content(m[1]) & words and not _DENIES.search(clause):
        return "the contrary"
    periods = {root(p) for m in _PERIODS.findall(ask.asked) for p in m if p}
    if periods and (said := {root(p) for p in _EVERY.findall(clause)}) and not said & periods:
        return "another period"
    if _NOW.search(ask.asked) and not _THEN.search(ask.asked) and _THEN.search(clause) and not _NOW.search(clause):
        return "another time"
    if (
        _alone(clause, words, ask)
        or (not final and _told_so(clause, words, ask))
        or _other_counted(clause, words, ask)
        or _other_state(clause, words, ask)
        or _other_object(clause, words, ask)
    ):
        return "of something else"
    return _other_quantity(clause, ask)


def _told_so(clause: str, words: frozenset[str], ask: Told) -> bool:
    """Whether a sentence puts a number into something that the question told: `37 birds flew away` for `21 birds flew away`."""
    text = re.sub(r"\bit\s+(?:will\s+)?takes?\b|,\s*(?:each|with|which)\b[^,]*,", " ", clause, flags=re.IGNORECASE)
    if set(_MODAL.findall(ask.asked)) & set(_MODAL.findall(text)) or (_MUST.search(ask.asked) and _MUST.search(text)):
        return False
    more = _ASKS_MORE.search(ask.asked)
    acts = bool(_HOLDS.search(ask.asked) and not _HELD.search(clause)) or bool(
        more and not _SAYS_MORE.search(clause)
    )  # `he gave 8` for what he has left
    missing = ask.words - words - ask.names
    if not missing and not acts:
        return False
    for part in (_BEHIND.sub("", text), _WHY.sub("", text)):
        said = content(part) - ask.names - _UNITS
        extra = said - ask.words
        if acts and said and len(words) > 1 and any((extra or said) <= c for c in ask.clauses):
            return True
        if missing and len(said) > 1 and extra and any(said <= c for c in ask.clauses):
            return True
    return False


def _other_state(clause: str, words: frozenset[str], ask: Told) -> bool:
    """Whether `80 seats are taken`, or `the theater has 80 seats`, where the empty ones are asked for, or `12 liters remain` for those that are lost."""
    if _GONE.search(ask.asked) and not _HOLDS.search(ask.asked) and _REMAINS.search(clause) and not _GONE.search(clause):
        return True
    asked, said = _STATE_ASKED.search(ask.asked), _STATE.search(clause)
    if asked is None or root(asked[1]) in words or asked[1] in _PLAIN_STATES:
        return False
    return (
        said[1] not in _PLAIN_STATES
        if said
        else bool(
            re.match(r"\W*(?:so\W+)?(?:the\s+)?\w+\s+(?:has|have|had)\s+(?:an?\s+total\s+of\s+)?\d+\s+[a-z]+\W*$", clause, re.IGNORECASE)
        )
    )


def _other_object(clause: str, words: frozenset[str], ask: Told) -> bool:
    """Whether `on art` stands for `on history`, both of them in the question."""
    asked, said = dict(_OBJECT.findall(ask.asked)), dict(_OBJECT.findall(clause))
    return any(
        root(said[p]) != root(asked[p]) and root(asked[p]) not in words and root(said[p]) not in ask.words and root(said[p]) in ask.all
        for p in said.keys() & asked.keys()
        if not {said[p], asked[p]} & IDLE
    )


def _other_counted(clause: str, words: frozenset[str], ask: Told) -> bool:
    """Whether of the things that the question counts another one is named than the asked one: blue marbles for red ones."""
    asked, said = ask.counted & ask.words, ask.counted & content(_BEHIND.sub("", clause))
    return bool(asked and said and not asked & words)


def _alone(clause: str, words: frozenset[str], ask: Told) -> bool:
    """Whether a sentence speaks of one alone where all together are asked for: `a can finish the work in 6 days`."""
    if (of := _WHOSE.match(clause)) and root(of[1]) in ask.all and root(of[1]) not in ask.words and words - {root(of[1])} <= ask.words:
        return True  # his aunt has 24
    m = re.match(r"\W*(?:so|thus|therefore|hence)?\W*([A-Za-z]\w*)\s+(?:can|could|will|has|had|takes|took|alone)\b", clause)
    return bool(
        m and m[1] in ask.parties and _JOINT.search(ask.asked) and not re.search(rf"\b{m[1]}\b", ask.asked) and not _JOINT.search(clause)
    )


def _short(text: str) -> str:
    """`the greatest common divisor` as gcd, `the least common multiple` as lcm."""
    return _COMMON.sub(lambda m: "gcd" if m[1] else "lcm", text)


def _other_quantity(clause: str, ask: Told) -> str | None:
    """Whether a sentence gives another quantity: the area for the perimeter, the slope of a perpendicular line."""
    stated = _STATED.search(clause)
    if stated is None:
        return None
    said = {q[0].lower() for q in _QUANTITY.finditer(_OF.split(_short(stated["what"] or stated["of"]))[0])}
    question = _short(ask.asked)
    wish = _WISH.search(question)
    asked = _QUANTITY.search(_OF.split(question[wish.end() :])[0]) if wish else None
    if asked and len(said) == 1:
        mine, theirs = _KINDS[_singular(asked[0])], _KINDS[_singular(said.pop())]
        alike = [name for name, kinds in _KINDS.items() if kinds & mine]
        if (
            not mine & theirs
            and {c for c, _ in mine} & {c for c, _ in theirs}
            and not re.search(rf"\b(?:{'|'.join(alike)})", clause, re.IGNORECASE)
        ):
            return "another quantity"
    altered = _ALTERED.search(stated["what"] or "")
    if altered and stated["what"] and not re.search(rf"\b{altered[0][:5]}", ask.asked, re.IGNORECASE) and _SIMPLER.search(stated["what"]):
        return "another quantity"
    return None


def _singular(name: str) -> str:
    name = name.lower()
    return name if name in _KINDS else name[:-1]

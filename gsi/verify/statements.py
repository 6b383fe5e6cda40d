"""The one number that a sentence states: patterns of doubt, context and remarks around it, and how they are told apart."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from functools import lru_cache

from gsi.verify.arithmetic import evaluate
from gsi.verify.doubt import HEDGE, doubtful, taken_back
from gsi.verify.numbers import NUMBER, Number, plain, value_of
from gsi.verify.words import VALUES, in_words

_UNIT = re.compile(
    r"(?:kg|mg|g|km|cm|mm|m|ft|in|mi|[kKMGT]?i?B|lbs?|oz|ml|l|L|s|h|hrs?|am|pm|mph|th|st|nd|rd|J|N|W|V|K|C|F|A|T|Hz|kJ|kW|Pa|eV|[A-Za-z]{3,})\d?(?:\s?\^\{?-?\d\}?)?(?![A-Za-z\d])"
)
_REASON = re.compile(
    r"[,;(]*\s*\b(?:because|since|which(?!\s+(?:\w+\s+)?round)(?!\s+(?:is|equals)\s+\$?\d[\d.,]*\s+(?!more|less|fewer|times|of|higher|greater)[a-zA-Z]+\W*$)|where|rather than|instead of|and not|given)\b[^=]*$|,\s*not\b[^=]*$",
    re.DOTALL | re.IGNORECASE,
)
# seven pounds, 3 fewer than the 10 pounds of potatoes
_COMPARED = re.compile(
    r"(?<=[a-z\d]),\s+(?:which\s+is\s+)?\$?\d[\d.,]*\s+(?:(?:[a-z]+\s+){0,2}(?:more|fewer|less)\s+than|(?:[a-z]+\s+)?of\s+(?:which|whom))\b[^=]*$",
    re.IGNORECASE,
)
# a number behind one of these says when, where or for what; the answer is the other one
_CONTEXT = re.compile(
    r"(?:^\W*with|\b(?:in|at|after|during|within|over|before|from|out\s+of|goal\s+of|by\s+selling|giving|every|each|per|for|on|each\s+of|of\s+(?:the|his|her|their)))\s+"
    r"(?:about\s+|\w+ing\s+|(?:the|a|an|his|her|their|its|all|remaining|day|year|step|week|next|first|last|those|these)\s+){0,3}$",
    re.IGNORECASE,
)
_ROUNDED = re.compile(
    r",?\s*\b(?:which|that|and|is|or|it|this)?\s*\bround(?:s|ed|ing)?\s+(?:it\s+)?(?:up\s+|down\s+|off\s+)?to\s+(?=[$\d])", re.IGNORECASE
)
# `16 students don't read novels` says how many they are; `16 dollars are not enough` takes them back
_OTHERS = re.compile(
    r"(?<=\d)(?P<who>(?:\s+[a-z]+){0,6}?)\s+(?:do|did|are|were|have|had|can|could|will|would)(?:n't|\s+not)\s+(?!enough|right|correct|possible|the\s|it\b|be\b|have\b)[a-z][^\d]*$",
    re.IGNORECASE,
)
_SINCE = re.compile(r"^\W*(?:since|as|because)\b[^,]*(?<!\d),\s+(?=[^,]*\d)", re.IGNORECASE)
# x = 4 works, since x = -1 makes the denominator zero
_REJECTED = re.compile(
    r"(=\s*-?\d[\d./]*)(?:\s+(?:works|is\s+(?:valid|fine)|is\s+(?:the|a)\s+(?:only\s+|valid\s+)*(?:solution|answer|root)))?\s*,?\s*\b(?:since|because|as|while|but|whereas)\s+[a-z]\s*=\s*-?\d[^=]*"
    r"(?:\bnot\b|n't\b|extraneous|zero|negative|undefined|invalid|fails?|impossible|reject)[^=]*$|(?<=\d)\s+works\W*$"
)
# the least value is -4, attained at x = 2
_ATTAINED = re.compile(
    r"(?<=[\d)}])\s*,?\s+(?:(?:is\s+|which\s+is\s+)?(?:attained|achieved|reached|occurring|obtained)\s+|which\s+(?:occurs|happens)\s+)?(?:at|when|where|for)\s+\(?[a-z]\s*=[^=]*$",
    re.IGNORECASE,
)
_EARLIER = re.compile(
    r"^\W*(?:my|the)\s+(?:first|earlier|previous|initial|original)\s+(?:result|answer|value|guess|attempt|calculation)\s+was\s+(?:wrong|incorrect|off)\s*[;,:]\s*(?:and\s+)?(?=.*\d)",
    re.IGNORECASE,
)
_COMES_TO = re.compile(
    r"(?:[-+*/]\s*\(?-?\d[\d.,]*\)?\s*|\w\([\d,\s]+\)\s*|\bbut\s+we\s+(?:want|need)\s+[^,\d]*),\s+which\s+(?:is|equals|gives|makes)\s+([$]?-?\d[\d.,]*)\W*$",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    r"^\W*neither\b[^;=]*;\s*|^\W*not\b[^;=]*;\s*(?:but\s+)?it(?:'s|\s+is)\s+(?=[$]?-?\d)|^\W*not\b(?:\.\d|[^.;])*?\bbut\s+|^(?:[a-z]+\s+){1,5}(?:isn't|is\s+not|wasn't|was\s+not)\s+[$]?-?\d(?:\.\d|[^.;=])*?\bbut\s+(?:rather\s+)?(?=[$]?-?\d)"
    r"|^[^=]*\b(?:easy|tempting|careless|forget)\b[^=]*,\s+but\s+(?=(?:the|it|that|this)\b[^,]*\bis\s)|^[^,;.=]*?\b(?:isn't|is\s+not|wasn't|was\s+not|not)\s+[^,;]*[,;]\s*(?:but\s+)?(?:rather\s+|it's\s+|it\s+is\s+)+(?=[$]?-?\d)",
    re.IGNORECASE,
)
_THEREFORE = re.compile(
    r",\s+(?:and\s+)?(?:so|thus|therefore|hence|meaning|making|giving|which\s+(?:means|makes|gives))\s+(?!that\b|far\b)|,\s+and\s+(?=the\s+[^,=]*\bis\s+[$]?-?\d[\d.,/]*\W*$)|,?\s+(?:leaving|saving(?=\s+[$]?\d)|leaves(?=\s+[$]?\d)|which\s+leaves|resulting\s+in|for\s+a\s+(?:grand\s+)?total\s+of)\s+",
    re.IGNORECASE,
)
_ARITHMETIC = re.compile(
    r"\d[\d.,]*\s*(?:%|\\%|[A-Za-z]{1,15}(?:/[A-Za-z]+)?)?\)?\s*(?:[-+*/x]|\\times|\\cdot|\\div)\s*[$(]*-?\d[\d.,]*\)*\s*(?:%|\\%)?\s*(?:[A-Za-z]++(?:\s*+/\s*+[A-Za-z]++)?\s*+){0,3}+$"
)
_TOTAL = re.compile(r"\s*(?:[A-Za-z]+\s+){0,3}?(?:in\s+all|in\s+total|altogether|total(?!\s+of))\b", re.IGNORECASE)
_TOTALLED = re.compile(r"\btotal\s+of\s+$|\b(?:together|altogether|in\s+all|in\s+total|combined)[,:]?\s+$", re.IGNORECASE)
# 5/12, or about 0.417
_OR_ABOUT = re.compile(
    r",?\s*\bor\s+(?:about|approximately|roughly|around|\\approx)\s+(-?\d[\d.,]*\s*(?:\\?%|percent\b)?)\W*$", re.IGNORECASE
)
# the balance is the value of 120 payments: $104,761.48
_BEHIND_COLON = re.compile(r"(?<=[a-z]):\s+([$]?-?\d[\d,]*(?:\.\d+)?(?:\s+[a-z]+)?)\W*$")
_LISTING = re.compile(r":\s*-?\d+(?:\s*,\s*(?:and\s+)?-?\d+){1,30}\W*$")
_FUNCTION = re.compile(r"(?:\b|\\)(?:ln|log|sin|cos|tan|sec|csc|cot|sqrt|exp|arcsin|arccos|arctan|gcd|lcm)\b[\s({]*$", re.IGNORECASE)
_AFTERTHOUGHT = re.compile(
    r"\s+\[[^\[\]]*[-+*/=\\][^\[\]]*\]\s*$|(?<=[\w.%)])(?<!\bof)(?<!\bis)\s+\((?![^()]*\bor\b)[^()]*(?:[A-Za-z]{2}|=)[^()]*\)\s*$"
)


@lru_cache(maxsize=4096)
def read_number(clause: str) -> Number | None:
    """The single number that a clause states; None where it states none, several, a range, a bound or an expression."""
    text = _EARLIER.sub("", re.sub(r"^\s*\\approx", "", plain(clause)))
    if taken_back(text):
        return None
    if "=" in text:
        text = re.sub(r"(?<=\d),\s*not\s+[\d\s.,+*/()x-]+=\s*\d[\d.]*\W*$", "", text)  # 7, not 14 - 2 = 12
    if stated := _COMES_TO.search(text):
        text = stated[1]  # 4 + (-4), which is 0
    text = _SINCE.sub("", re.sub(r"\b(it|that|there|this)'s\b", r"\1 is", text) if "'" in text else text)
    text = _REJECTED.sub(r"\1", text) if "=" in text else text
    if (about := _OR_ABOUT.search(text)) and _near(text[: about.start()], about[1]):
        text = text[: about.start()]
    if (stated := _BEHIND_COLON.search(text)) and "=" not in text:
        text = stated[1]
    text = re.sub(r"(?<=\d)(\s+)\$\d+(?=\s+(?:bill|note|coin|ticket)s?\b)", r"\1", text)  # two $10 bills
    text = re.sub(r"(?P<n>-?\d[\d,]*(?:\.\d+)?)\s*=\s*(?P<x>[A-Za-z])\W*$", r"\g<x> = \g<n>", text)  # 20 = A
    text = _without_workings(_AFTERTHOUGHT.sub("", re.sub(r"(?<=\d)/-(?!\d)", "", text)))  # Rs. 120/-
    last = _THEREFORE.split(text)[-1]
    text = last if re.search(r"\d", last) or in_words(last) is not None else re.sub(r",\s+(?:since|because)\s.*$", "", text)
    head = _REASON.sub("", _COMPARED.sub("", text), count=1)
    text = head if (re.search(r"\d", head) or in_words(head) is not None) and not re.match(r"\W*(?:not|as)\b", text) else text
    text = _INSTEAD.sub("", text)
    if (
        text.count(":") == 1
        and (listing := _LISTING.search(text))
        and (of := read_number(text[: listing.start()]))
        and of.value == len(re.findall(r"-?\d+", listing[0]))
    ):
        return of  # there are five such integers: -2, -1, 0, 1, and 2
    if "=" in text:
        text = _solved(_ATTAINED.sub("", text))
    if "\\approx" in text:
        exact, _, rounded = text.partition("\\approx")
        text = (
            rounded
            if not re.search(r"\d", exact) or (re.search(r"\d\.\d+\W*$", exact) and re.fullmatch(r"\W*\d+\W*(?:[A-Za-z]+\W*)?", rounded))
            else exact
        )
    parts = re.split(
        r",?\s*\b(?:i\.e\.,?|that is,|that is(?=\s-?[$\d])|or equivalently|in other words|which\s+(?:is|equals)(?=\s+\$?\d[\d.,]*\s+[a-zA-Z]+\W*$)|so\s+(?:it|that|this|the\s+(?:answer|total|result))\s+(?:is|makes|becomes|gives))\s",
        text,
    )
    text = (
        parts[0] if "=" not in parts[-1] and len(NUMBER.findall(parts[-1])) > 1 and NUMBER.search(parts[0]) else parts[-1]
    )  # 560 miles, i.e. 2 trips of 280
    text = _ROUNDED.split(text)[-1]
    if (twice := re.search(r"^([^\d]*)\([$]?(\d[\d,]*)\)[^\d=]*$", text)) and in_words(twice[1]) == int(twice[2].replace(",", "")):
        text = twice[2]  # ninety-six (96)
    if "=" in text:
        sides = text.split("=")
        if _ARITHMETIC.search(sides[-2]) and (number := _result(sides[-1])):
            return number
        if re.search(r"^\W*(?:not\b|either\b)|\b(?:maybe|perhaps|possibly|probably|might be)\b|[<>]|\\[lg]eq?\b|\w\([^()]*$", sides[0]):
            return None
        if any(re.search(r",|;|\b(?:and|or)\b", re.sub(r"(?<=\d),(?=\d{3})", "", side)) for side in sides[1:-1]):
            return None  # x = 2, y = 3
        if re.search(r"(?:^|[\s,$(])(?<![*/+x-]\s)-?\d+\s*[a-z][\s)]*$", sides[-2]) and not re.search(
            r"\b(?:has|have|is|are|was|gets|needs|pays|earns|costs|makes|total)\b", sides[-2]
        ):
            return None  # 2x = 10 says nothing of x yet
        if re.fullmatch(r"[\s$.]*0[\s$.]*", sides[-1]) and re.search(r"\d\s*[a-z](?![a-z])|(?<![a-z])[a-z]\s*\^", sides[-2]):
            return None  # 2x + z - 5 = 0 is an equation, not zero
        text = sides[-1]
    text = _OTHERS.sub(r"\g<who>", text.strip())
    if HEDGE.search(text) and not _restated(text):
        return None
    found = list(NUMBER.finditer(text))
    if not found:
        worded = in_words(text) if not re.search(r"\d|\\", text) else None
        return None if worded is None else Number(worded, bool(re.search(r"\bper\s?cent", text)))
    if any(m["sign"] and re.search(r"[\w)}%]\s*$", text[: m.start()]) for m in found[1:]):
        return None  # an operator, not a sign
    if re.fullmatch(r"\d{1,3}(?: \d{3})+", text):
        return Number(Fraction(text.replace(" ", "")))
    values = [value_of(m) for m in found]
    chosen = 0
    if len(set(values)) > 1:
        total = [i for i, m in enumerate(found) if _TOTAL.match(text[m.end() :]) or _TOTALLED.search(text[: m.start()])]
        money = [i for i, m in enumerate(found) if m["cur"] or re.match(r"\s*dollars?\b", text[m.end() :])]
        main = [i for i, m in enumerate(found) if not _CONTEXT.search(text[: m.start()])]
        one = next((c for c in (total, money, main) if len(c) == 1), None)
        if one is None or len(money) > 1:
            return None
        chosen = one[0]
        if one is total and chosen == len(found) - 1:
            found, values, chosen = found[-1:], values[-1:], 0  # reading: 10, biology: 6, together 16 pages
    first, value = found[chosen], values[chosen]
    if value is None or not all(
        _clean_after(text[a.end() : b.start() if b else len(text)]) for a, b in zip(found, [*found[1:], None], strict=True)
    ):
        return None
    before = re.sub(r"\ba\b", "", text[: first.start()])
    if re.search(r"[+*/^_!\\{}|]|\b[a-zB-HJ-Z]\s*$|[\w)]\s*-\s*$|\([^)]*$|\[[^\]]*$", before) or _FUNCTION.search(before):
        return None
    if (
        not first["cur"]
        and re.match(r"[-+]", first.group())
        and re.search(r"[\w)]\s*$", text[: first.start()])
        and not re.search(r"[a-z]{2}\s+$", text[: first.start()])
    ):
        return None
    return number_of(first, value)


def _near(exact: str, rounded: str) -> bool:
    """Whether a sentence's only number is, but for rounding, the one that it adds: `5/12` and `0.417` or `41.7%`."""
    found = [*NUMBER.finditer(exact), *NUMBER.finditer(rounded)]
    values = [v / (100 if m["pct"] else 1) for m in found if (v := value_of(m)) is not None]
    return len(found) == len(values) == 2 and abs(values[0] - values[1]) * 100 <= abs(values[0])


def _solved(text: str) -> str:
    """The last of several equations, where it is the only one that is solved: `30x = 180, x = 6`."""
    *before, last = re.split(r"[,;]\s+(?:and\s+|so\s+|then\s+)?", text)
    if not before or not re.fullmatch(r"\W*[a-zA-Z]\s*=\s*[$]?-?[\d.,/]+\W*", last) or not all("=" in part for part in before):
        return text
    return text if any(re.search(r"(?:^|\s)[a-zA-Z]\s*=\s*[$]?-?[\d.,/]+\W*$", part) for part in before) else last


_CHANCE = re.compile(r"\b(?:probability|chances?|fraction|proportion)\b", re.IGNORECASE)


def as_fraction(clause: str, question: str) -> str:
    """The clause with `3 in 8` as 3/8, where a probability or a fraction is asked for."""
    return re.sub(r"\b(\d+)\s+(?:in|out\s+of)\s+(\d+)\b", r"\1/\2", clause) if _CHANCE.search(question) else clause


def given(question: str) -> set[Fraction | None]:
    """The numbers that a question gives, in digits and in words."""
    asked = plain(question)
    return {value_of(m) for m in NUMBER.finditer(asked)} | {
        Fraction(VALUES[w]) for w in re.findall(r"[a-z]+", asked.lower()) if w in VALUES
    }


_WORKINGS = re.compile(r"(-?\d[\d,]*(?:\.\d+)?)(\D{0,40}?)\s+\(([\d\s.,$+*/()-]{3,80})\)\s*$")


def _without_workings(text: str) -> str:
    """`$21 (36 - 11 - 4)` without the bracket, where that is what the bracket comes to."""
    m = _WORKINGS.search(text)
    if m is None:
        return text
    kinds = {"(": "lp", ")": "rp"}
    tokens = re.findall(r"\d+(?:\.\d+)?|[-+*/()]", m[3].replace(",", ""))
    got = evaluate([(kinds.get(t, "op" if t in "+-*/" else "num"), t, i) for i, t in enumerate(tokens)])
    return text[: m.start(3) - 1] if got and len(tokens) > 2 and got.value == Fraction(m[1].replace(",", "")) else text


def concluded(text: str) -> str:
    """What a sentence concludes, if that has a number: the part behind `, so` or `, leaving`."""
    last = _THEREFORE.split(text)[-1]
    return last if re.search(r"\d", last) or in_words(last) is not None else text


def without_reason(clause: str) -> str:
    """The clause up to `because`, `since`, `which is ...`."""
    return _REASON.sub("", clause, count=1)


def _restated(text: str) -> bool:
    """Whether a sentence with `or` and no other doubt says the same value twice: `180 rings, or 180 years`."""
    rest = re.sub(r"\bor\b", ",", text)
    values = {value_of(m) / (100 if m["pct"] else 1) for m in NUMBER.finditer(text) if value_of(m) is not None}  # type: ignore[operator]
    return rest != text and len(values) == 1 and len(NUMBER.findall(text)) == 2 and not HEDGE.search(rest)


_BETWEEN = re.compile(r"\s+between\s+(\d{1,12})\s+and\s+(\d{1,12})(?![\d.,]*\d)")


def new_number(clause: str, question: str) -> Number | None:
    """The only number that the question does not give, of a sentence with several: `it takes 840 minutes to groom 5 dogs and 3 cats`."""
    known = given(question)
    said = concluded(plain(clause))
    text = _BETWEEN.sub(lambda m: "" if {Fraction(m[1]), Fraction(m[2])} <= known else m[0], said)
    found = list(NUMBER.finditer(text))
    if not (1 if text != said else 2) <= len(found) <= 5 or doubtful(text) or re.search(r"[=+*/^<>{}|\\?:]|\d\s*-\s*\d", text):
        return None
    fresh = [i for i, m in enumerate(found) if value_of(m) not in known]
    gaps = [re.findall(r"[A-Za-z]{2,}", text[a.end() : b.start()]) for a, b in itertools.pairwise(found)]
    beside = [gap for i, gap in enumerate(gaps) if fresh and fresh[0] in (i, i + 1)]
    if len(fresh) != 1 or not all(set(map(str.lower, gap)) - {"and", "or", "to", "by"} for gap in beside):
        return None
    m = found[fresh[0]]
    after = text[m.end() : found[fresh[0] + 1].start() if fresh[0] + 1 < len(found) else len(text)]
    value = value_of(m)
    if value is None or not _clean_after(after) or re.search(r"[\w)]\s*-\s*$|\b[b-z]\s*$", text[: m.start()]):
        return None
    return number_of(m, value)


def number_of(m: re.Match[str], value: Fraction) -> Number:
    return Number(value, bool(m["pct"]), (m["scale"] or "").strip().lower().rstrip("s"), m["cur"] == "$")


def _result(text: str) -> Number | None:
    """The number right behind `a op b =`. What follows it describes it: `20 people did not go`, `3 hours to write 10800 words`."""
    m = NUMBER.match(text.lstrip(" $"))
    if m is None or m["sign"] == "+":
        return None
    rest = text.lstrip(" $")[m.end() :]
    word = re.match(r"\s*([A-Za-z]+)\b", rest)
    described = (
        word
        and word[1].lower() not in ("or", "and", "to", "if", "plus", "minus", "times", "x")
        and (len(word[1]) > 1 or _UNIT.match(word[1]))
    )
    described = (
        described or re.match(r"\s+(?:\$\d+|\d+-[a-z]+)\s+[a-z]+", rest) or re.match(r"\s+if\s+(?:he|she|they|all|each|every)\b", rest)
    )
    value = value_of(m)
    if value is None or not (described or re.fullmatch(r"[\W_]*", rest)) or re.search(r"[+*/^_!\\{}|<>=]|\bor\b", rest[:25]):
        return None
    return number_of(m, value)


def _clean_after(rest: str) -> bool:
    """Whether what follows a number is a unit or prose, not more of an expression."""
    if rest[:1].isalpha():
        unit = _UNIT.match(rest)
        if not unit:
            return False
        rest = rest[unit.end() :]
    elif (word := re.match(r"\s+([A-Za-z])\b(?!\.)", rest)) and not (_UNIT.match(word[1]) or word[1] in "aI"):
        return False
    rest = re.sub(
        r"^-(?=[a-z]{3})|(?:\b|(?<=\d))[A-Za-z]+\s?\^\s?\{?\s?-?\d\s?\}?|(?<=[A-Za-z\d])\s*/\s*(?=[A-Za-z])|^\s*/\s*(?=[A-Za-z]{2,})|\([^()\d]*\)|\b\d?[A-Za-z]+\d\b",
        "",
        rest,
    )
    return (
        rest.strip() not in (",", ";")
        and not re.match(r"\s*and\b", rest)
        and not re.search(r"[+*/^_!\\{}|:<>=]|(?<![a-z])-\s*[\d(a-z]|^\s*[(\[]", rest)
    )


@lru_cache(maxsize=4096)
def parse_gold(text: str) -> Number | None:
    """A reference answer that is one plain number, else None."""
    if re.fullmatch(r"-?\d{1,40}(?:\.\d{1,40})?", text):
        return Number(Fraction(text))
    number = read_number(text)
    return number if number and not re.search(r"=|^\s*[\[({]|\d\s*,\s+\d|\d:\d|\d,\d{1,2}(?!\d)|\b(?:pi|sqrt)\b", text) else None

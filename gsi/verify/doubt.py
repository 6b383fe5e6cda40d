"""Whether a sentence denies, hedges or bounds what it names: `not 70`, `more than 310`, `3 or 4`, `42 is the wrong answer`."""

from __future__ import annotations

import re

from gsi.verify.words import VALUES

HEDGE = re.compile(
    r"\b(?:either|neither|maybe|perhaps|possibly|probably|might|could\s+be|may\s+(?:be|have)|not|cannot|never|otherwise|unsure|"
    r"or\s+(?:more|less|fewer|so)|at\s+(?:least|most)|if|unless|no\s+(?:real\s+)?solutions?|impossible|extraneous|such\s+as)\b|n't\b|[<>]|\\(?:leq?|geq?|lt|gt|neq?)(?![a-z])|\\pm"
    r"|\b(?:over(?!\s+(?:the\s+)?(?:\d+|[a-z]+)\s+(?:day|week|month|year|hour|minute)s?\b)|under|above|below|nearly|almost|(?<!add )(?<!adds )(?<!added )up\s+to|between|(?:more|less|[a-z]+er)\s+than)\s+"
    rf"(?:about\s+)?(?:[$\\(]*-?\d|(?:a\s+)?(?:{'|'.join(VALUES)})\b)"
    r"|(?<!\\)\b(?:twice|double|triple|thrice|half|third|quarter|times)\s+(?:of\s+|that\s+of\s+)?[$]?\d"
    r"|\b(?:exceed(?:s|ing)?|surpass(?:es|ing)?)\s+(?:about\s+)?(?:rs\s?\.?\s*)?[$\\(]*\d[\d.,]*(?!.*\bby\b)|\b(?:plus|minus)\s+(?:some|something|more|tax)\b|\b(?:plus|minus)\s+[$]?\d[\d.,]*\W*$|\d\s*-?ish\b"
    r"|\d\s*(?:\bto\b|\.\.+|\\sim|\\ldots)\s*\$?\d|\bor\b",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\b(?:not\s+(?:entirely\s+|quite\s+)?(?:sure|certain)|unsure|guessing)\b|\bguess\b(?<!should guess)(?<!must guess)", re.IGNORECASE
)
_WRONG = re.compile(
    r"\b(?:that(?:'s|\s+is)|this\s+is|which\s+is|but\s+(?:it's|it\s+is))\s+(?:\w+\s+)?(?:incorrect|wrong|false|mistaken)\b"
    r"|\b(?:is|was|be)\s+(?:the\s+|an?\s+)?(?:wrong|incorrect|false)\b|\b(?:false|untrue|wrong|incorrect)\s+(?:that|to)\b"
    r"|==|^\W*(?:the\s+|an?\s+)?(?:wrong|incorrect|false)\s+(?:answer|value|result|number|solution)\s+(?:is|was|would)\b"
    r"|\b(?:anything|everything|nothing|all)\s+(?:but|except)\b|^\W*(?:see|cf\.?|refer\s+to|look\s+at)\s+\w+\s+\d"
    r"|\bdivides\s+\d+\W*$|\b(?:divisor|factor|square|cube|root|reciprocal|inverse|multiple|power|factorial|logarithm|double|digits)\s+of\s+[$]?\d[\d.,]*\W*$",
    re.IGNORECASE,
)


def taken_back(text: str) -> bool:
    """Whether a sentence denies or doubts what it names: `42 is the wrong answer`, `anything but 42`."""
    return bool(_UNSURE.search(text) or _WRONG.search(text))


def doubtful(text: str) -> bool:
    """Whether a sentence takes back, hedges or bounds the value in it."""
    return bool(HEDGE.search(text)) or taken_back(text)

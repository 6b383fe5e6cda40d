"""Options of a choice query in another order for every attempt, and responses to them back in the order of the plain question.

A model that likes one position solves one query in five for ever without knowing anything. With the options in another
place each time its right answers fall to chance, and `metrics.above_chance` sees it.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import lru_cache

from gsi.seeds import seed_of
from gsi.types import SHUFFLE, Query

Order = tuple[int, ...]  # position -> index of the option shown there

# `Both A and B`, `none of the above`: true only where they stand
_REFERS = re.compile(
    r"\b(?:above|below|preceding|following|previous)\b|(?<![\w'])[A-H](?=\s*(?:,|and|or|&)\s*[A-H](?![\w']))|\bonly [A-H]\b"
)


def shuffled(query: Query, seed: int, iteration: int, attempt: int) -> tuple[Query, str] | None:
    """The query with its options in the order of this attempt, and the label for the ledger: `shuffle:BDACE` shows B first.

    None where the attempt sees the plain question: attempt 0, an order that comes out plain, or a query that cannot be
    shuffled (see `can_shuffle`).
    """
    if query.options is None or not can_shuffle(query):
        return None
    n = len(query.options)
    order = order_of(n, seed, query.id, iteration, attempt)
    if order == tuple(range(n)):
        return None
    options = tuple(query.options[i] for i in order)
    answer = _letter(order.index(_index(query.answer)))
    return replace(query, question=_show(query, options), options=options, answer=answer), SHUFFLE + "".join(map(_letter, order))


def can_shuffle(query: Query) -> bool:
    """Whether the question shows its options one behind the other with their letters, its answer is one of these, and no option points at another."""
    options = query.options or ()
    return (
        2 <= len(options) <= 8
        and 0 <= _index(query.answer) < len(options)
        and not any(_REFERS.search(o) for o in options)
        and _shown(query.question, options) is not None
    )


def order_of(n: int, seed: int, query_id: str, iteration: int, attempt: int) -> Order:
    """The order of one attempt: in every n attempts each option stands once in each place. Attempt 0 is in the plain order.

    A Latin square with its columns and symbols permuted, drawn from the identity: so a position gets no more than its share
    by luck, which independent orders would now and then give it.
    """
    block, row = divmod(attempt, n)
    rng = random.Random(seed_of(seed, "options", iteration, query_id, block))
    columns = rng.sample(range(n), n)
    symbols = rng.sample(range(n), n) if block else [columns.index(i) for i in range(n)]
    shift = rng.sample(range(n), n) if block else [0, *rng.sample(range(1, n), n - 1)]
    return tuple(symbols[(shift[row] + column) % n] for column in columns)


# --------------------------------------------------------------------------------------- the question


def _show(query: Query, options: tuple[str, ...]) -> str:
    spans = _shown(query.question, query.options or ())
    assert spans is not None
    text, end = query.question, len(query.question)
    parts = []
    for (a, b), option in zip(reversed(spans), reversed(options), strict=True):
        parts += [text[b:end], option]
        end = a
    return text[:end] + "".join(reversed(parts))


@lru_cache(maxsize=4096)
def _shown(question: str, options: tuple[str, ...]) -> tuple[tuple[int, int], ...] | None:
    """Where the question shows the text of each option behind its letter: `(A) 35 (B) 25`, `a ) 35 , b ) 25`, lines `A. 35`."""
    parts = []
    for i, option in enumerate(options):
        mark, text = f"[{_letter(i)}{_letter(i).lower()}]", r"\s*".join(map(re.escape, "".join(option.split())))
        if not text:
            return None
        parts.append(rf"(?:(?<!\w)\(?\s*{mark}\s*[).:]\s*){{1,2}}({text})(?!\w)")
    found = list(re.finditer(r"[\s,;'\"]*".join(parts), question))
    return tuple(found[-1].span(i) for i in range(1, len(options) + 1)) if found else None


# --------------------------------------------------------------------------------------- the response

_MARKED = re.compile(
    r"(?:\b(?:answer|ans|option|choice)\b(?:\s+(?:choice|option))?(?:[^\S\n]*(?:is|would be|must be|should be|[:=]))?\s*(?:(?:option|choice)\s*)?|####\s*|\\boxed\s*\{\s*)"
    r"(?:\\text\s*\{\s*)?[$*\s]*[(\[]?(?P<letter>[A-H]|[a-h](?=\s*[)\].}*]|\s*$))(?![\w'])(?!\s+(?:and|or|to)\b|\s*[,/&+=-]\s*[A-Za-z]\b)",
    re.IGNORECASE | re.MULTILINE,
)
_MENTION = re.compile(
    r"(?<![\w\\'])[A-H](?![\w])|[(\[]\s*[a-h]\s*[)\]]|(?<![\w\\(])[a-h]\s*\)(?=\s)|(?:^|[\n;,]\s*)[a-h]\s*[.:](?=\s)"
    r"|\b(?i:option|choice|answer)s?\s+(?:is\s+)?[\"'(]?[b-h]\b"
    r"|(?i:\b(?:first|second|third|fourth|fifth|last|\d(?:st|nd|rd|th)|former|latter|\d)\s+(?:answer\s+)?(?:option|choice|one)\b|\b(?:option|choice)s?\s+(?:number\s+)?#?\d)"
)


def restored(response: str, label: str, question: str, extracted: str | None) -> str | None:
    """The response with the option letters of its answer as the plain question has them; None where that is not certain.

    Letters are replaced where a mark says that they are the answer (`The answer is B`, `Answer: (B) 60 km`, a box, `option
    B`, a response that is nothing but `B` or begins `B) 60 km`). Any other word that may name an option by letter or
    place makes the whole uncertain, since the text would then speak of another option than the plain question shows there.

    Args:
        label: what `shuffled` gave.
        question: the plain question, whose own `A train` may come again.
        extracted: what the checker read as the answer, in the shuffled order.
    """
    order = [ord(c) - 65 for c in label.removeprefix(SHUFFLE)]
    spans = [m.span("letter") for m in _MARKED.finditer(response)]
    if not spans and (m := re.match(r"\s*[(\[]?([A-Ha-h])(?:\s*[)\].:]|\s*$)", response)):
        spans = [m.span(1)]
    text, end = "", 0
    rest = []  # what is left when the marked letters are taken out
    last = None
    for a, b in spans:
        i = ord(response[a].upper()) - 65
        if i >= len(order):
            return None
        last, letter = response[a].upper(), _letter(order[i])
        text += response[end:a] + (letter if response[a].isupper() else letter.lower())
        rest.append(response[end:a])
        end = b
    rest.append(response[end:])
    plain = "\u25a1".join(rest)
    for article in set(re.findall(r"(?<![\w'])A [a-z]{3,}\b", plain)):
        if re.search(rf"(?<!\w)[Aa] {article[2:]}\b", question):
            plain = plain.replace(article, "")
    if _MENTION.search(plain):
        return None
    if extracted is not None and re.fullmatch("[A-H]", extracted) and last not in (None, extracted):
        return None
    return text + response[end:]


def _letter(i: int) -> str:
    return chr(65 + i)


def _index(letter: str) -> int:
    letter = letter.strip(" ().").upper()
    return ord(letter) - 65 if len(letter) == 1 else -1

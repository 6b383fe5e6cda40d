"""Multiple choice as data sets have it: the question with its options, and the right one by its letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gsi.tasks.fields import LeftOut, is_int


def lettered(options: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(chr(ord("A") + i), option) for i, option in enumerate(options)]


def with_choices(question: str, options: Sequence[Any]) -> str:
    """The question with its options and their letters, unless it shows them already."""
    if "Answer Choices:" in question or all(re.search(rf"(?<!\w){letter}\s*[).:]", question) for letter, _ in lettered(options)):
        return question
    shown = " ".join(f"({letter}) {o}" for letter, o in lettered(options))
    return f"{question}\nAnswer Choices: {shown}"


def right_letter(answer: str, options: Sequence[str], labels: Sequence[str] = (), said: Any = None) -> str:
    """The letter of the right option, from how data sets name it: `C`, `(C)`, `C.`, its label (ARC has `1` to `4` too) or its text.

    `said`: the answer as the data has it: a whole number that counts the options, from 0 or from 1, is not guessed. Raises LeftOut for what names no option.
    """
    text = answer.strip()
    bare = re.fullmatch(r"\(?([A-Za-z])[).:]?", text)
    if text in labels:
        return chr(65 + labels.index(text))
    if bare and ord(bare[1].upper()) - 65 < len(options):
        return text if len(text) == 1 else bare[1].upper()
    same = [i for i, option in enumerate(options) if option.strip() == text]
    if len(same) == 1 and not (is_int(said) and 0 <= said <= len(options)):
        return chr(65 + same[0])
    raise LeftOut(
        f"{text[:40]!r} names none of the {len(options)} options: with `options` the answer is a letter, a label or the text of one",
        "answer",
    )

"""The answer at the end of a solution, where the data has no column for it."""

from __future__ import annotations

import re

_GROUPED = re.compile(r"[^\d(\[{]*\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?[^\d)\]},]*")  # one number with its digits in groups


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` or `\fbox{...}` (or `\boxed 5`) of a text; None where there is none or it never closes."""
    starts = list(re.finditer(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*", text))
    if not starts:
        return None
    begin = starts[-1].end()
    if text[begin : begin + 1] != "{":
        bare = re.match(r"[^\s$]+", text[begin:])
        return bare.group().rstrip(".") if bare else None
    depth = 0
    for end in range(begin, len(text)):
        if text[end] in "{}" and (text[end - 1] != "\\" or text[end - 2 : end] == "\\\\"):
            depth += 1 if text[end] == "{" else -1
            if depth == 0:
                return text[begin + 1 : end].strip()
    return None


def final_answer(text: str) -> str | None:
    r"""What a solution ends in: its last `\boxed{...}`, else what follows its last `####`, else its last `the answer is ...`.

    None where it says none of the three: nothing is guessed from the last number.
    """
    if boxed := last_boxed(text):
        return boxed
    if "####" in text:
        said = text.rpartition("####")[2].strip()
        return (said.replace(",", "") if _GROUPED.fullmatch(said) else said) or None  # `1,234`, but not `(1,2)`
    stated = re.findall(r"answer is:?\s+([^\n]+)", text, re.IGNORECASE)
    found = re.split(r"(?<=[^\d\s])\.(?:\s|$)|\.\s|\.$", stated[-1])[0] if stated else ""
    return found.strip().strip("*").strip() or None

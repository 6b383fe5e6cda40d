"""The answer at the end of a solution, where the data has no column for it."""

from __future__ import annotations

import re


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
        return text.rpartition("####")[2].strip().replace(",", "") or None
    said = re.findall(r"answer is:?\s+([^\n]+)", text, re.IGNORECASE)
    found = re.split(r"(?<=[^\d\s])\.(?:\s|$)|\.\s|\.$", said[-1])[0] if said else ""
    return found.strip().strip("*").strip() or None

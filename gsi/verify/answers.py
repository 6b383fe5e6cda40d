"""What a response finally commits to: the last marked answer, or a later sentence that corrects it, or its last sentence.

`commitment` returns that clause as text and judges nothing: reading a number, a letter or an expression out of it, or
finding none, is the business of the task's check.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from gsi.types import Query
from gsi.verify.cues import (
    ADMITS,
    ASIDE,
    BLAMES,
    BOX,
    BRACKETED,
    CHECKS,
    CONCLUDES,
    DENIED,
    DOUBT,
    EXPLAINS,
    FOLLOWS,
    HINDSIGHT,
    ITEM,
    LEAD,
    MARK,
    NEXT,
    ONCE,
    OPERAND,
    OPERATED,
    OTHERS,
    PLAN,
    POLITE,
    QUOTED,
    RECONSIDERED,
    REMARK,
    RESULT,
    REVISED,
    SAYS,
    SENTENCE_END,
    STATED,
    STRONG,
    TAGS,
    TOLD,
    UNDONE,
    UNFINISHED,
)
from gsi.verify.tidy import tidy

MAX_CLAUSE = 1000


class Clause(NamedTuple):
    """The clause that states the final answer."""

    text: str
    mark: str  # what marks it as the answer (`The answer is`, `####`, a box); "" = nothing but its place at the end


def commitment(response: str, question: str | None, readable: Callable[[str], bool], marked_only: bool = False) -> Clause | None:
    """The clause that states the final answer; None where there is none (empty, cut off, the question repeated).

    A sentence after the marked answer replaces it where `readable` finds an answer in that sentence; with `marked_only`
    there is no answer then, nor where nothing is marked and the response is more than an answer. Reads the last
    20,000 characters, from the end of a `<think>` part up to the point where a further question begins.
    """
    text = response.rpartition("</think>")[2] if "</think>" in response else response
    if "<think>" in text:
        return None  # cut off while it was thinking
    if "<" in text:
        text = TAGS.sub("", re.sub(r"<answer>\s*", "\nAnswer: ", text, flags=re.IGNORECASE).split("</s>")[0])
    text = tidy(text)
    if question and len(question) > 30:
        question = tidy(question).strip()
        if len(text.strip()) > 30 and text.strip() in question:
            return None
        text = text.replace(question, "\n")
    text = _own(text)
    if quoted := QUOTED.search(text):
        text = text[: quoted.start()]
    if (told := TOLD.search(text)) and (first := MARK.search(text[: told.start()])) and not REVISED.search(text, first.end(), told.start()):
        text = text[: told.start()]
    if (
        len(text) <= 60
        and "\n" not in text.strip()
        and not re.search(r"[a-z]{2,} [a-z]{2,}|\bans|boxed|fbox|####|[?=]\s*$|[\d%)][.!?]\s+[a-z]", text, re.IGNORECASE)
        and text.strip()
    ):
        return Clause(_reconsidered(text), "")  # nothing but an answer
    text = HINDSIGHT.sub("", text)
    marks = list(MARK.finditer(text))
    if len(marks) > 3 and _looped(text, marks):
        text, marks = text[: marks[-1].start()], marks[:-1]
    marked, end, mark = _last_marked(text, marks)
    if marked is None:
        if marked_only:
            return None
        if explained := EXPLAINS.search(text):
            text = text[: explained.start()] if text[: explained.start()].strip() else text
        found = _last_sentence(text, readable)
        if found and (UNFINISHED.search(text[-60:]) or PLAN.match(found)):
            return None
        if found and question and len(found) > 20 and bare(found) in bare(question):
            return None  # a piece of the question
        if found and _enumerated(text, found):
            return None
        return Clause(_reconsidered(found), "") if found else None
    if (explained := EXPLAINS.search(text, end)) and not re.search(
        r"\b(?:wait|actually|oops|correction|scratch)\b", text[end:], re.IGNORECASE
    ):
        text = text[: explained.start()]
    closed = re.match(r"[ \t}.]*\n?[ \t]*(?:\$\$|\\\])", text[end:]) if mark.startswith("boxed") else None  # no new display begins here
    tail, after = text[end:], text[_clause_end(text, end + closed.end() if closed else end) :]
    if aside := CHECKS.search(after):  # what is checked or remarked behind an answer replaces it only by a conclusion
        concluded = list(STRONG.finditer(after, aside.end()))
        after = after[: aside.start()] + ("\n" + after[concluded[-1].start() :] if concluded else "")
    if found := _after_revision(marked):
        return Clause(found, mark)
    if revised := [m for m in REVISED.finditer(tail) if not (BLAMES.match(m[0]) and OTHERS.search(tail[: m.start()]))]:
        corrected = tail[revised[-1].end() :]
        later = _last_sentence(corrected) or _last_result(corrected)
        if later is None and re.fullmatch(
            r"\W*(?:no\W+)?(?:(?:it(?:'s|\s+is)|make\s+(?:it|that)|i\s+mean|option|to)\s+)?\W*(?:[A-H]|-?[\d.,]+)\W*",
            corrected,
            re.IGNORECASE,
        ):
            later = _strip(re.sub(r"^\W*no\W+", "", corrected))
        if later is None and (gives := re.search(r"\b(?:which|that|this)\s+(?:gives|makes|leaves)\b([^.\n]*\d[^.\n]*)", corrected)):
            later = _strip(gives[1])
        if later is None and (stated := STATED.search(corrected)):
            later = _strip(stated[1] or stated[2])
        if later is None and (follows := FOLLOWS.search(corrected[-MAX_CLAUSE:])):
            later = _strip(follows[1])
        if later is None and ADMITS.match(revised[-1][0]) and re.search(r"=\s*[$]?-?\d[\d.,]*\W*$", corrected):
            later = _strip(corrected)
        if later is None and UNDONE.search(corrected):
            return None
        if later is None and re.match(r"\s*(?:wrong|incorrect|mistake|scratch|oops)", revised[-1].group(), re.IGNORECASE):
            return None  # taken back, nothing put in its place
        return Clause(later or marked, mark)
    later = _last_sentence(after)
    if later is not None and not ASIDE.match(later) and readable(later):
        return None if marked_only else Clause(later, "")
    return Clause(marked, mark)


def without(query: Query) -> str:
    """The detail of a verdict on a response that commits to nothing."""
    return "no marked answer" if query.marked else ""


def bare(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def _own(text: str) -> str:
    """The text up to where another question begins, if anything was said before it."""
    said = SAYS.search(text)
    if said is None:
        return text
    for m in islice(NEXT.finditer(text, said.end()), 20):
        before = text[: m.start()].strip()
        if not before.endswith(":"):
            return before
    return text


def _last_marked(text: str, marks: list[re.Match[str]]) -> tuple[str | None, int, str]:
    """The last marked answer, where it ends and its mark; boxes that stand side by side are one answer."""
    best: tuple[int, int, str] | None = None
    mark = "boxed"
    for m in marks[:-30:-1]:
        start = m.end()
        if m.group() != "####" and not text[start:].split("\n", 1)[0].strip(" *:$"):
            gap = re.match(r"[\s*:$]*", text[start:])
            start += gap.end() if gap else 0  # the answer stands on the next line
        stop = _clause_end(text, start)
        clause = _strip(text[start:stop])
        if (
            clause
            and text[stop : stop + 1] != "?"
            and not BOX.search(clause)
            and "boxed" not in clause
            and re.search(r"[\w\\]", clause)
            and not re.match(
                r"(?:correct|right|wrong|incorrect|below|above|as follows|found|obtained|reasonable|unique|valid|in\s+(?:simplest|lowest))\b",
                clause,
            )
        ):
            head = text[max(text.rfind("\n", 0, m.start()), text.rfind(". ", 0, m.start())) + 1 : m.start()]
            if ONCE.search(head):
                continue
            denied = re.search(r"\bnot\s+(?:the\s+)?$", text[max(0, m.start() - 10) : m.start()], re.IGNORECASE)
            best, mark = (m.start(), stop, f"not {clause}" if denied else clause), m.group()
            break
    parts: list[tuple[int, int, str]] = []
    for m in list(BOX.finditer(text))[-30:]:
        inner_end = m.end() if m.group("bare") else _closing(text, m.end())
        content = m.group("bare") or text[m.end() + 1 : inner_end - 1]
        if inner_end > m.end() - 1 and content.strip():
            parts.append((m.start(), inner_end, content.strip()))
    if parts and (best is None or parts[-1][0] > best[0]):
        first = len(parts) - 1
        joined = parts[first][2]
        while first > 0 and (
            glue := re.fullmatch(
                r"[\s$]*(,|;|,?\s*\\?(?:text\{)?\s*(?:and|or)\s*\}?)[\s$]*(?:\w\s*=\s*)?", text[parts[first - 1][1] : parts[first][0]]
            )
        ):
            first -= 1
            joined = f"{parts[first][2]} {re.sub(r'[^a-z,;]|text', '', glue.group(1))} {joined}"
        before = re.search(
            r"(\bnot\b|n't|\bmaybe|\bperhaps|\bpossibly|\bprobably)[^.\n\w]*(?:be\b|equal to\b)?[^.\n\w]*$", text[: parts[first][0]][-40:]
        )
        if OPERAND.search(text[max(0, parts[first][0] - 20) : parts[first][0]]) or OPERATED.match(text, parts[-1][1]):
            joined = f"not {joined}"  # `1 - \\boxed{5/12}`, `\\boxed{3}^2`: no more than a part of an answer
        elif DENIED.match(text, parts[-1][1]):
            joined = f"not {joined}"
        best, mark = (parts[first][0], parts[-1][1], (before.group(1) + " " if before else "") + joined), "boxed"
    return (best[2], best[1], mark) if best else (None, 0, "")


def _enumerated(text: str, found: str) -> bool:
    """Whether the last sentence is only the last of several listed values: `1. 320`, `2. 330`, `3. 340`."""
    items = ITEM.findall(text)
    return len(items) > 1 and len(set(items)) > 1 and items[-1] == found.rstrip(".") and bool(ITEM.search(text.rstrip()[-60:]))


def _looped(text: str, marks: list[re.Match[str]]) -> bool:
    """Whether the last of many equal marked answers is one that the end of the text cut off: `#### 40 #### 40 #### 40 #### 4`."""
    *before, last = (text[m.end() :].split("\n", 1)[0].strip(" .*") for m in marks[-4:])
    cut = text[marks[-1].end() :].strip(" .*")
    return cut == last and len(set(before)) == 1 and before[0] != last and before[0].startswith(last)


def _closing(text: str, start: int) -> int:
    """Index after the brace that closes the one at `start`; start where it is never closed (cut off)."""
    depth = 0
    for i in range(start, min(len(text), start + 2000)):
        depth += (text[i] == "{" and text[i - 1] != "\\") - (text[i] == "}" and text[i - 1] != "\\")
        if depth == 0:
            return i + 1
    return start


def _clause_end(text: str, start: int) -> int:
    opening = re.match(r"\s*(\$\$|\\\[|\\begin\{(\w+\*?)\})", text[start:])
    if opening:  # display mathematics may run over lines
        close = {"$$": "$$", "\\[": "\\]"}.get(opening.group(1), "\\end{" + (opening.group(2) or "") + "}")
        found = text.find(close, start + opening.end())
        if found < 0:
            return len(text)
        start = found + len(close)
        if opening.group(2) is None:
            return start
    m = SENTENCE_END.search(text, start, start + MAX_CLAUSE)
    return m.start() if m else min(len(text), start + MAX_CLAUSE)


def _strip(clause: str) -> str:
    clause = re.sub(r"^[\s*_#:]+|[\s*_]+$", "", clause.strip())
    lead = LEAD.match(clause)
    clause = clause[lead.end() :] if lead else clause
    clause = clause.strip(' \t\n*"`').rstrip(".,;:!").strip()
    return clause[:-1].rstrip(' "') if clause.endswith("}") and "{" not in clause else clause


def _last_result(text: str) -> str | None:
    """The last sentence of a correction that says what the result is."""
    found = [p for p in SENTENCE_END.split(text) if p and RESULT.search(p) and SAYS.search(p) and not p.rstrip().endswith("?")]
    return _strip(found[-1][-MAX_CLAUSE:]) if found else None


def _reconsidered(clause: str) -> str:
    """The clause behind a change of mind in it: `17 + 25 = 43 - wait, I mean 42`."""
    cues = list(RECONSIDERED.finditer(clause))
    return (_strip(clause[cues[-1].end() :]) if cues else "") or _strip(clause)


def _after_revision(clause: str) -> str | None:
    cues = list(REVISED.finditer(clause))
    if not cues or (BLAMES.match(cues[-1][0]) and cues[-1][0].rstrip()[-1].isalpha()):
        return None
    return _strip(clause[cues[-1].end() :]) or None


def _last_sentence(text: str, readable: Callable[[str], bool] | None = None) -> str | None:
    """The last sentence that says something, as far as it can hold an answer.

    With `readable` (the response has no marked answer at all) remarks after the sentence with the answer are passed over.
    """
    cuts = [0, *(m.end() for m in SENTENCE_END.finditer(text)), len(text)]
    passed: str | None = None  # the last sentence, where it holds no answer
    for start, stop in zip(reversed(cuts[:-1]), reversed(cuts[1:]), strict=True):
        sentence = text[start:stop].strip(" \t\n*$\\[]()`#")
        if not sentence or POLITE.match(sentence):
            continue
        if readable is not None and start and (REMARK.match(text[start:stop]) or BRACKETED.match(text[start:stop])):
            passed = passed or _strip(text[start:stop][-MAX_CLAUSE:])
            continue
        if sentence.endswith(("?", "=")) or "boxed" in sentence:
            return passed
        if readable is None:
            return _strip(text[start:stop][-MAX_CLAUSE:]) if CONCLUDES.match(sentence) and SAYS.search(sentence) else None
        found = _strip(text[start:stop][-MAX_CLAUSE:])
        if readable(found):
            return found
        if passed is not None or SAYS.search(sentence) or DOUBT.search(sentence):
            return passed or found
        passed = found
    return passed

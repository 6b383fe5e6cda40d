"""What a response finally commits to: the last marked answer, or a later sentence that corrects it, or its last sentence.

`commitment` returns that clause as text and judges nothing: reading a number, a letter or an expression out of it, or
finding none, is the business of the task's check.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

MAX_CHARS = 20_000  # a longer response is judged by its end only
MAX_CLAUSE = 1000


class Clause(NamedTuple):
    """The clause that states the final answer."""

    text: str
    mark: str  # what marks it as the answer (`The answer is`, `####`, a box); "" = nothing but its place at the end


_TRANSLATE = str.maketrans(
    dict.fromkeys("−–—‐‑﹣－", "-")
    | dict.fromkeys("⁄∕÷", "/")
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
    | {"×": "\\times ", "·": "\\cdot ", "∞": "\\infty ", "∪": "\\cup ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx "}
    | {"π": "\\pi ", "°": "^\\circ ", "²": "^2", "³": "^3", "±": "\\pm ", "√": "\\sqrt", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"}
    | {"⅓": " 1/3", "⅔": " 2/3", "，": ",", "：": ":", "（": "(", "）": ")", "’": "'", "\u200b": ""}
)

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?=\{)|(?P<bare>\w))")
_MARK = re.compile(
    r"(?:####"
    r"|\b(?:answer|ans|option|choice)(?:\s+(?:choice|option))?[ \t.\-]*(?=\(?(?-i:[A-E])\)?\s*(?:[.\n]|$|(?:is|as)\b|[$]?\d|rs\b))"
    r"|(?<!/)\b(?:answer|ans|(?:correct|right|final|my|best)\s+(?:option|choice|pick)|(?:true|correct|actual|real)\s+(?:value|result|total))\b(?!\s*(?:choices|options)|\s*key)"
    r"(?:[^\n.:=?!]{0,60}?(?:\bis\b|\bare\b|\bwould\s+be\b|\bmust\s+be\b|\bequals\b)|[^\n.:=?!\d]{0,40}?[:=])"
    r"|\b(?:option|choice)\s*\n\s*(?=\(?(?-i:[A-E])\)?\s*(?:[.\n]|$))"
    r"|(?:(?<=\n)|^)[ \t]*#{1,6}[ \t]*(?:\*\*)?(?:the\s+)?(?:final\s+)?answer(?:\*\*)?[ \t]*(?=\n)"
    r"|\banswer\s+-\s+(?=\S)|\b(?:answer|ans)\s+(?=[a-e]\s*(?:\.\s*)?$)"
    r")",
    re.IGNORECASE,
)
# an answer that is quoted, not given: nothing from here on counts
_QUOTED = re.compile(
    r"\b(?:reference|gold(?:en)?|expected|official|ground[- ]truth|textbook)(?:'s)?\s+(?:final\s+)?(?:answer|solution|rationale)\b"
    r"|\b(?:the\s+)?(?:(?:correct|right|true)\s+)?answer\s+(?:\w+\s+){0,4}?(?:according\s+to|in|from)\s+(?:the|my)\s+(?:answer\s+)?(?:key|book|textbook|solutions?)\b"
    r"|\banswer key\b",
    re.IGNORECASE,
)
# a base model that goes on with the next example of its prompt: what it answers there is the answer to another question
_NEXT = re.compile(
    r"\n[ \t]*(?:[#*>]+[ \t]*)?(?:next\s+|new\s+)?(?:question|q|problem|exercise|example|user|human|instruction)\b[ \t]*#?\d*[*]*[ \t]*[:.][*]*(?=\s|\w)"
    r"|\n[ \t]*(?:###|##|#)[ \t]*(?:question|problem|instruction|user)\b|<\|(?:im_start|im_end|endoftext|end_of_text|eot_id|eom_id|end|user|assistant|eos)\|>"
    r"|\[/?INST\]|<(?:end_of_turn|start_of_turn|eos|bos)>|<｜[^<>｜]{1,30}｜>",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(
    r"(?<=[.!])[ ]+(?:sanity\s+)?(?:check|verification)\s*:(?!.*(?:\bnot\b|\bwait\b|\boops\b|\bwrong\b|\bso\b|\\ne))|"
    r"\n[^\w\n]{0,10}(?:explanation|reasoning|justification|rationale|proof|verification|check)\W*[:\n]",
    re.IGNORECASE,
)
_POLITE = re.compile(
    r"\W*(?:i hope|hope (?:this|that)|let me know|thank|thanks|feel free|would you like|do you|is there anything|if you (?:have|need|want)|good luck|"
    r"please|happy to|you're welcome|great job|have a )",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"(?<=[.!?]\s)(?:no|hmm+)\b(?!\s+(?:one|other|more))[\s,:;.!-]*"
    r"|\b(?:no,?\s+wait|wait|actually|correction|oops|sorry|scratch\s+that|i\s+meant?|on\s+second\s+thought|mistaken?|incorrect|wrong|(?:just|only)\s+kidding|"
    r"let\s+me\s+(?:re-?)?(?:check|think|do|calculate))\b[\s,:;.!-]*",
    re.IGNORECASE,
)
# an answer that somebody had before, or others have
_ONCE = re.compile(
    r"\b(?:first(?:ly)?|initially|originally|before|earlier|previously|at first)\W+(?:\w+\W+){0,2}?(?:thought|guess(?:ed)?|believed|assumed|said|wrote|answered)\b[^,;]*$"
    r"|\b(?:express|write|round|simplify)\s+(?:the|your|our|this)\s+$"
    r"|\b(?:people|students|someone|somebody|one|you)\s+(?:\w+\s+)?(?:say|think|guess|assume|answer|believe|claim)s?\b[^,;]*$",
    re.IGNORECASE,
)
# a correction that states its own result
_RESULT = re.compile(
    r"\b(?:result|total|value|answer|number|amount|cost|price|sum|area|probability)\s+(?:\w+\s+){0,3}?(?:is|becomes|equals|comes|should\s+be|must\s+be|would\s+be|=)",
    re.IGNORECASE,
)
_CHECKS = re.compile(
    r"(?:^|[.!\n$\]])[\s(]*(?:we\s+can\s+(?:also\s+)?(?:check|verify|see)|(?:to|let\s+us|let's)\s+(?:check|verify)|as\s+a\s+check|checking|check:|note|notice|remark|indeed|for\s+(?:example|instance))\b",
    re.IGNORECASE,
)
_STRONG = re.compile(
    r"(?:(?<=[.!?]\s)|(?<=\n)|(?<=\.\n\n))(?:so|thus|therefore|hence|finally|no|wait|but|however|the\s+(?:\w+\s+)?(?:answer|result|total))\b",
    re.IGNORECASE,
)
_UNDONE = re.compile(
    r"\b(?:forgot|missed|overlooked|miscounted|misread|miscalculated|is\s+wrong|isn't\s+right|not\s+right|reconsider|re-?think)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\W*(?:(?:we\s+(?:can\s+)?)?(?:check|verif)|note|because|since|this\b|here|where|indeed|for example|e\.g|i\.e|as\b|i hope|let me know|\[asy|\(|.*\\end\{)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Za-z])(?<!\bsq)(?<!\blbs)(?<!\boz)(?<!\bft)(?<!\bhrs)(?<!\bmin)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)[.!?](?=\s|$)|(?<=\b[A-H])[.](?=\s|$)|\n+"
)
_LEAD = re.compile(
    r"(?:[\s:=,;>\-]{0,8}(?:it(?:'s|\s+is|\s+(?:must|should|would)\s+be)|therefore|thus|hence|yes(?=[,\s]+\$?\d)|no(?=,?\s+it(?:'s|\s+is)\b)|so|then|simply|just|exactly|approximately|about|around|roughly|equal to|given by|now|that)\b"
    r"|\s*[:=]|\s*\\approx)+(?!\s*\d*\s*[-+*/])",
    re.IGNORECASE,
)

_CONCLUDES = re.compile(
    r"\W*(?:so|thus|therefore|hence|finally|in total|total|in all|altogether|together|combined|overall|consequently|this|it|i|the|he|she|they|we|there)\b|^[\s$\\]*-?\d|^\W*(?-i:[A-E])\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)",
    re.IGNORECASE,
)
_DOUBT = re.compile(r"\b(?:not|no|cannot|impossible|unsure|unknown|guess|maybe|either|or)\b|n't\b", re.IGNORECASE)
_SAYS = re.compile(r"\d|\\\w|\$|(?-i:\b[A-E]\b)|=|\b(?:true|false)\b|^(?:yes|no)\b", re.IGNORECASE)

_UNFINISHED = re.compile(
    r"\b(?:and|or|the|an|of|to|(?<!\bit )is|are|was|were|by|with|for|from|because|so|that|which|than|then|if|but|per|his|her|their|its|he|she|they|we)\s*\Z"
    r"|\b(?:and|then|so|he|she|they|we|which|who)\s+(?:earn|get|need|give|take|buy|sell|ha|do|pay|make|spend|use|want|eat|leave|find|can|will|must|have)\w{0,2}\s*\Z",
    re.IGNORECASE,
)
_ALIGNED = re.compile(r"\\(?:begin|end)\{(?:align(?:ed|at)?|equation|gather|split)\*?\}")
_RUNS = re.compile(r"(\s)\1{9,}")
_TAGS = re.compile(r"</?(?:s|b|i|u|p|br|em|strong|answer|span|div|sup|sub)\s*/?>", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w)*])\*\*(?=\S)([^*\n]*?)\*\*(?![\w(])")
# the last line, bold from end to end: an answer in large type
_BOLD_END = re.compile(r"\n[ \t]*\*\*(?!.*(?i:answer|boxed))(?=[^*\n]*\d|[^*\n]*\\|\(?[A-E]\)?\s*\*)([^*\n]{1,100})\*\*[ \t.]*\s*\Z")
_SPACING = re.compile(
    r"\\(?:blacksquare|square|qed)\b|\\left\b\.?|\\right\b\.?|(?<!\\)\\[,;: ](?![a-zA-Z])|\\displaystyle\b|\\(?:big|Big|bigg|Bigg)[lr]?\b|~"
)


def tidy(text: str) -> str:
    """The end of a response, with unicode signs and LaTeX spacing spelled one way."""
    text = text[-MAX_CHARS:].translate(_TRANSLATE)
    if "\x1b" in text:
        text = re.sub(r"\x1b\[[0-9;]{0,20}[A-Za-z]", "", text)
    if "\\n" in text:
        text = re.sub(r"\\n(?=\d|\\n|\s|$)", "\n", text)  # a line break that was escaped once too often
    text = _RUNS.sub(r"\1\1", text.replace("\\!", ""))
    if "\\text" in text:
        text = re.sub(r"\\text\{([^{}]*\banswer\b[^{}]*)\}", r"\1", text)
    if "\\begin{" in text and _ALIGNED.search(text):
        text = re.sub(r"\\\\|&", lambda m: "\n" if m.group() != "&" else "", _ALIGNED.sub("\n", text)) if "matrix" not in text else text
    if "**" in text:
        if bold := _BOLD_END.search(text, max(0, len(text) - 300)):
            text = f"{text[: bold.start()]}\nAnswer: {bold[1]}"
        text = _BOLD.sub(r"\1", text)
    if "=" in text or not text.isascii():
        text = re.sub(r"=\s?>|[→⇒⟹⟶]|\\(?:implies|Rightarrow|Longrightarrow)\b", "\n", text)  # an arrow starts the next statement
    text = _SPACING.sub(" ", text)
    return re.sub(r"\\[dtc]frac\b", r"\\frac", text)


def commitment(response: str, question: str | None, readable: Callable[[str], bool]) -> Clause | None:
    """The clause that states the final answer; None where there is none (empty, cut off, the question repeated).

    A sentence after the marked answer replaces it where `readable` finds an answer in that sentence. Reads the last
    20,000 characters, from the end of a `<think>` part up to the point where a further question begins.
    """
    text = response.rpartition("</think>")[2] if "</think>" in response else response
    if "<" in text:
        text = _TAGS.sub("", re.sub(r"<answer>\s*", "\nAnswer: ", text, flags=re.IGNORECASE).split("</s>")[0])
    text = tidy(text)
    if question and len(question) > 30:
        question = tidy(question).strip()
        if len(text.strip()) > 30 and text.strip() in question:
            return None
        text = text.replace(question, "\n")
    text = _own(text)
    if quoted := _QUOTED.search(text):
        text = text[: quoted.start()]
    if (
        len(text) <= 60
        and "\n" not in text.strip()
        and not re.search(r"[a-z]{2,} [a-z]{2,}|\bans|boxed|####|[?=]\s*$", text, re.IGNORECASE)
        and text.strip()
    ):
        return Clause(_strip(text), "")  # nothing but an answer
    marks = list(_MARK.finditer(text))
    if len(marks) > 3 and _looped(text, marks):
        text, marks = text[: marks[-1].start()], marks[:-1]
    marked, end, mark = _last_marked(text, marks)
    if marked is None:
        if explained := _EXPLAINS.search(text):
            text = text[: explained.start()] if text[: explained.start()].strip() else text
        found = _last_sentence(text, readable)
        if found and _UNFINISHED.search(text):
            return None
        if found and question and len(found) > 20 and _bare(found) in _bare(question):
            return None  # a piece of the question
        return Clause(found, "") if found else None
    if (explained := _EXPLAINS.search(text, end)) and not re.search(
        r"\b(?:wait|actually|oops|correction|scratch)\b", text[end:], re.IGNORECASE
    ):
        text = text[: explained.start()]
    tail, after = text[end:], text[_clause_end(text, end) :]
    if aside := _CHECKS.search(after):  # what is checked or remarked behind an answer replaces it only by a conclusion
        concluded = list(_STRONG.finditer(after, aside.end()))
        after = after[: aside.start()] + (after[concluded[-1].start() :] if concluded else "")
    if found := _after_revision(marked):
        return Clause(found, mark)
    if revised := list(_REVISED.finditer(tail)):
        corrected = tail[revised[-1].end() :]
        later = _last_sentence(corrected) or _last_result(corrected)
        if later is None and re.fullmatch(r"\W*(?:it(?:'s|\s+is)\s+)?\W*(?:[A-H]|-?[\d.,]+)\W*", corrected):
            later = _strip(corrected)
        if later is None and _UNDONE.search(corrected):
            return None
        if later is None and re.match(r"\s*(?:wrong|incorrect|mistake|scratch|oops)", revised[-1].group(), re.IGNORECASE):
            return None  # taken back, nothing put in its place
        return Clause(later or marked, mark)
    later = _last_sentence(after)
    return Clause(later, "") if later is not None and not _ASIDE.match(later) and readable(later) else Clause(marked, mark)


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


_END = re.compile(
    r"(?:####\s?|\b(?:the|final)\s+answer\s+is:?\s|\banswer:(?:\*\*)?\s?)\$?(?P<plain>-?\d{1,3}(?:,\d{3})+|-?\d{1,18}(?:\.\d{1,12})?)\.?\s*\Z"
    r"|\\boxed\{\$?(?P<box>-?\d{1,18}(?:\.\d{1,12})?)\}[$.\s]*\Z",
    re.IGNORECASE,
)
# whatever could make another place of the response count; with one of these it is read the long way
_ELSEWHERE = (
    *(
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
    ),
    *("instruction", "<", "not", "n't", "maybe", "perhaps", "possibly", "probably", "\nq"),
)


def ends_with_number(response: str, question: str | None) -> str | None:
    """The digits of a plain number with a usual mark before it at the very end of a response; None = read it the long way."""
    m = _END.search(response, max(0, len(response) - 80))
    if m is None:
        return None
    text = response.lower()
    if any(word in text for word in _ELSEWHERE) or max(text.count("boxed") - 1, text.count("####") - 3, text.count("answer") - 3) > 0:
        return None
    if question and response.strip() in question:
        return None
    return (m["plain"] or m["box"]).replace(",", "")


def _own(text: str) -> str:
    """The text up to where another question begins, if anything was said before it."""
    said = _SAYS.search(text)
    if said is None:
        return text
    for m in islice(_NEXT.finditer(text, said.end()), 20):
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
            and not _BOX.search(clause)
            and "boxed" not in clause
            and re.search(r"[\w\\]", clause)
            and not re.match(
                r"(?:correct|right|wrong|incorrect|below|above|as follows|found|obtained|reasonable|unique|valid|in\s+(?:simplest|lowest))\b",
                clause,
            )
        ):
            head = text[max(text.rfind("\n", 0, m.start()), text.rfind(". ", 0, m.start())) + 1 : m.start()]
            if _ONCE.search(head):
                continue
            denied = re.search(r"\bnot\s+(?:the\s+)?$", text[max(0, m.start() - 10) : m.start()], re.IGNORECASE)
            best, mark = (m.start(), stop, f"not {clause}" if denied else clause), m.group()
            break
    parts: list[tuple[int, int, str]] = []
    for m in list(_BOX.finditer(text))[-30:]:
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
        best, mark = (parts[first][0], parts[-1][1], (before.group(1) + " " if before else "") + joined), "boxed"
    return (best[2], best[1], mark) if best else (None, 0, "")


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
    m = _SENTENCE_END.search(text, start, start + MAX_CLAUSE)
    return m.start() if m else min(len(text), start + MAX_CLAUSE)


def _strip(clause: str) -> str:
    clause = re.sub(r"^[\s*_#:]+|[\s*_]+$", "", clause.strip())
    lead = _LEAD.match(clause)
    clause = clause[lead.end() :] if lead else clause
    clause = clause.strip(' \t\n*"`').rstrip(".,;:!").strip()
    return clause[:-1].rstrip(' "') if clause.endswith("}") and "{" not in clause else clause


def _last_result(text: str) -> str | None:
    """The last sentence of a correction that says what the result is."""
    found = [p for p in _SENTENCE_END.split(text) if p and _RESULT.search(p) and _SAYS.search(p) and not p.rstrip().endswith("?")]
    return _strip(found[-1][-MAX_CLAUSE:]) if found else None


def _after_revision(clause: str) -> str | None:
    cues = list(_REVISED.finditer(clause))
    return _strip(clause[cues[-1].end() :]) or None if cues else None


def _last_sentence(text: str, readable: Callable[[str], bool] | None = None) -> str | None:
    """The last sentence that says something, as far as it can hold an answer.

    With `readable` (the response has no marked answer at all) remarks after the sentence with the answer are passed over.
    """
    cuts = [0, *(m.end() for m in _SENTENCE_END.finditer(text)), len(text)]
    passed: str | None = None  # the last sentence, where it holds no answer
    for start, stop in zip(reversed(cuts[:-1]), reversed(cuts[1:]), strict=True):
        sentence = text[start:stop].strip(" \t\n*$\\[]()`#")
        if not sentence or _POLITE.match(sentence):
            continue
        if sentence.endswith(("?", "=")) or "boxed" in sentence:
            return passed
        if readable is None:
            return _strip(text[start:stop][-MAX_CLAUSE:]) if _CONCLUDES.match(sentence) and _SAYS.search(sentence) else None
        found = _strip(text[start:stop][-MAX_CLAUSE:])
        if readable(found):
            return found
        if passed is not None or _SAYS.search(sentence) or _DOUBT.search(sentence):
            return passed or found
        passed = found
    return passed

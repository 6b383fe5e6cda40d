"""The checks of the known tasks. Each decides inline, in microseconds, or returns the comparison that a worker has to make."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from fractions import Fraction

from gsi.types import Query, Verdict
from gsi.verify.answers import bare, commitment, without
from gsi.verify.asked import asked_number, difference
from gsi.verify.choices import check_choice, choose, lettered
from gsi.verify.cues import REVISED
from gsi.verify.doubt import doubtful
from gsi.verify.latex import mathematics, normal
from gsi.verify.numbers import Number, plain, same
from gsi.verify.shortcut import plain_last_sentence, stated_at_the_end
from gsi.verify.statements import as_fraction, given, new_number, parse_gold, read_number, without_reason
from gsi.verify.subject import beside, own_part
from gsi.verify.tidy import spelled


@dataclass(frozen=True)
class Symbolic:
    """A comparison that needs sympy."""

    gold: str
    got: str
    relative: bool = False


def decide(job: Symbolic) -> Verdict:
    """Runs in a worker. What cannot be read as mathematics is not the answer: `wrong`."""
    from gsi.verify.symbolic import equal

    try:
        return Verdict("correct" if equal(job.gold, job.got, job.relative) else "wrong", job.got)
    except ValueError as e:
        return Verdict("wrong", job.got, detail=str(e))


def check_number(response: str, query: Query) -> Verdict | Symbolic:
    """GSM8K, SVAMP: one exact number."""
    return _check(response, _spelled(query), expressions=False)


def check_math(response: str, query: Query) -> Verdict | Symbolic:
    """MATH: numbers exactly, anything else by its meaning; exact golds need an exact form."""
    return _check(response, _spelled(query), expressions=True)


def _spelled(query: Query) -> Query:
    """With its answer's unicode signs spelled as those of a response, and `{1, 2}` as a set."""
    answer = spelled(query.answer).strip()
    if answer.startswith("{") and (m := _BARE_SET.fullmatch(answer)):
        answer = rf"\{{{m[1]}\}}"
    return query if answer == query.answer else replace(query, answer=answer)


_BARE_SET = re.compile(r"\{([^{}]+)\}")


def check_theoremqa(response: str, query: Query) -> Verdict | Symbolic:
    """TheoremQA: numbers and lists (in order) within a relative error, True/False, an option in brackets."""
    query = _spelled(query)
    answer = query.answer.strip()
    if answer.lower() in ("true", "false", "yes", "no"):
        return _check_bool(response, query)
    if re.fullmatch(r"\([a-z]\)", answer):
        options = lettered(query.question)
        clause = commitment(response, query.question, lambda c: choose(c, options) is not None, query.marked)
        letter = choose(clause.text, options, query.question, clause.mark) if clause else None
        return (
            Verdict("no_answer", detail="" if clause else without(query))
            if letter is None
            else Verdict("correct" if letter == answer[1].upper() else "wrong", letter)
        )
    if answer.startswith("["):
        return _check_list(response, query)
    return _check(response, query, expressions=True, relative=True)


_LETTER, _CAPITAL = re.compile(r"\(?[A-Ja-j]\)?"), re.compile(r"\(?[A-J]\)?")
_CHOICES = re.compile("answer choices", re.IGNORECASE)


def check_auto(response: str, query: Query) -> Verdict | Symbolic:
    """A task that declares nothing: by the form of the reference answer."""
    answer = query.answer.strip()
    if (query.options and _LETTER.fullmatch(answer)) or (_CAPITAL.fullmatch(answer) and _CHOICES.search(query.question)):
        return check_choice(response, query)
    if answer.lower() in ("true", "false", "yes", "no"):
        return _check_bool(response, query)
    return check_math(response, query)


_IF = re.compile(r"\W*if\s+([^,]{5,150}),\s*(?:then\s+)?", re.IGNORECASE)


def _check(response: str, query: Query, expressions: bool, relative: bool = False) -> Verdict | Symbolic:
    gold = parse_gold(query.answer)
    if gold is not None and (number := stated_at_the_end(response, query.question)) is not None:
        return Verdict("correct" if same(gold, number, query.question, relative) else "wrong", _show(number))
    if gold is not None and not query.marked and (sentence := _plain_sentence(response, query.question)):
        found = _as_asked(*sentence, query.question, "") if query.question else sentence[1]
        if isinstance(found, Number):
            found = Verdict("correct" if same(gold, found, query.question, relative) else "wrong", _show(found))
        if found is not None:
            return found
    committed = commitment(response, query.question, _has_number if gold is not None else _has_mathematics, query.marked)
    if committed is None:
        return Verdict("no_answer", detail=without(query))
    clause = re.sub(r"(?<=\d)\$(?=[A-Za-z]\W*$)", "", committed.text)  # $N = 121$k
    if ":" in clause and re.search(r"\bratio\b", query.question):
        clause = re.sub(r"\b(\d+)\s*:\s*(\d+)\b", r"\1/\2", clause) if gold is not None else clause
    if query.question and (condition := _IF.match(clause)) and bare(condition[1]) in bare(query.question):
        clause = clause[condition.end() :]
    clause = as_fraction(clause, query.question)
    if query.question and gold is not None:
        clause = own_part(clause, query.question)
    got = mathematics(clause)
    if gold is not None:
        number = read_number(clause) or (read_number(got) if got != clause and not doubtful(plain(clause)) else None)
        reread = _as_asked(clause, number, query.question, committed.mark) if query.question else number
        if isinstance(reread, Verdict):
            return reread
        number = reread
        if number is not None:
            return Verdict("correct" if same(gold, number, query.question, relative) else "wrong", _show(number))
        if doubtful(plain(clause)) or not (re.search(r"\d|\\[a-zA-Z]{2}", clause) or (expressions and got in ("e", "pi"))):
            return Verdict("no_answer", detail=f"no single value in {clause[:80]!r}")
        words = re.search(r"[A-Za-z]{3}", re.sub(r"\b(?:sqrt|sin|cos|tan|log|exp|arcsin|arccos|arctan|infinity)\b", "", got))
        if "\\" not in got and (not expressions or words):
            status = "no_answer" if words else "wrong"
            return Verdict(status, None if status == "no_answer" else got[:200], detail=f"no single value in {clause[:80]!r}")
        plainly = re.fullmatch(r"-?[\d.]+", query.answer) or "\\" in query.answer  # else `1e-3` would be read as e - 3
        return Symbolic(query.answer if plainly else f"{gold.value.numerator}/{gold.value.denominator}", got[:1000], relative)
    clause = re.sub(r"[,\s]+(?:and\s+)?not\s+[\s$]*[\[(][^\[\]()]*[\])][\s$]*$", "", clause)
    in_words = _words(query.answer)
    if in_words:
        clause = re.sub(r"(?:,|\s+and|\s+but)\s+(?:not|rather\s+than)\s+(?:an?\s+)?\w+\W*$", "", clause)  # even, not odd
    if re.search(r"\b(?:maybe|perhaps|possibly|probably|either|might|could be|not|unsure)\b|n't\b", clause, re.IGNORECASE):
        return Verdict("no_answer", detail=f"no commitment in {clause[:80]!r}")
    if query.question and not committed.mark and not in_words and (why := beside(clause, query.question, None, "")):
        return Verdict("no_answer", detail=f"{why}: {clause[:80]!r}")
    if in_words and len(in_words) == 1 and len(in_words[0]) == 1 and (letter := choose(clause, (), query.question, committed.mark)):
        return Verdict("correct" if letter == in_words[0] else "wrong", letter)
    if normal(query.answer) == normal(clause) or (normal(query.answer) == normal(got) and not (in_words and len(in_words[0]) == 1)):
        return Verdict("correct", got[:200])
    if in_words:
        named = _words(re.split(r"\b(?:is|are|be|falls|on)\b", clause)[-1])
        return Verdict("correct" if in_words in (_words(clause), named) else "wrong", got[:200])
    ratio = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", query.answer)
    if ratio and re.search(r"\bratio\b", query.question) and (number := read_number(clause)):
        return Verdict("correct" if number.value * int(ratio[2]) == int(ratio[1]) else "wrong", _show(number))
    if not re.search(r"[\d\\$=^+*/]|(?<![A-Za-z'])[A-Za-z](?![A-Za-z'])|infinity", clause):
        return Verdict("no_answer", detail=f"no mathematics in {clause[:80]!r}")
    if query.answer.startswith("\\{") and (m := _BARE_SET.fullmatch(got.strip())):
        got = rf"\{{{m[1]}\}}"
    return Symbolic(query.answer, got[:1000], relative)


def _plain_sentence(response: str, question: str) -> tuple[str, Number] | None:
    """The short way for a response that ends in a plain sentence without a mark; None where that repeats the question."""
    sentence = plain_last_sentence(response)
    if sentence and question and (question.strip() in response or bare(sentence[0]) in bare(question)):
        return None
    return sentence


def _as_asked(clause: str, number: Number | None, question: str, mark: str) -> Number | Verdict | None:
    """The number of a clause that answers the question: another one than the first that is read, or none at all."""
    if number is None or number.value in given(question):
        number = (
            new_number(clause if number is None else without_reason(clause), question) or number
        )  # `he reads 30 pages a day for 6 days`
    if not mark:
        apart = difference(clause, question)
        if apart is False:
            return Verdict("no_answer", detail=f"a difference that was not asked for: {clause[:80]!r}")
        number = apart or asked_number(clause, question) or number
    if why := beside(clause, question, number, mark):
        return Verdict("no_answer", detail=f"{why}: {clause[:80]!r}")
    return number


def _has_number(clause: str) -> bool:
    return read_number(clause) is not None


def _has_mathematics(clause: str) -> bool:
    return bool(
        re.search(r"[$=\\]", clause)
        or re.match(
            r"\W*(?:(?:so|thus|therefore|hence|finally)\W+)?(?:we\s+|this\s+)(?:gets?|gives?|obtain|have|find)\b.*[\d(^]",
            clause,
            re.IGNORECASE,
        )
    )


_IN_MATHEMATICS = re.compile(
    r"\d*(?:arc)?(?:sin|cos|tan|sec|csc|cot)h?|\d*(?:ln|log|exp|sqrt|pi|inf|infty|infinity|oo)|\d*[A-Za-z]|\d+(?!(?:st|nd|rd|th|am|pm)$)[a-z]{0,3}"
)


def _words(text: str) -> tuple[str, ...] | None:
    """The words of an answer in words (`\\text{two lines}`, `B, C`, `\\text{(E)}`, `east`), letters sorted; None for mathematics."""
    text = re.sub(r"\\(?:text|mbox|textbf|mathrm|textnormal)\s*\{([^{}]*)\}", r"\1", text.replace("$", ""))
    found = re.findall(r"[A-Za-z0-9:]+", re.sub(r"\b(?:an?|the|is|are|and|it|on|option)\b(?!\))", " ", text) if len(text) > 2 else text)
    if "\\" in text or re.search(r"[_^=+*/]", text) or not re.search(r"[A-Za-z]{2}|[A-Z]", text) or not found:
        return None
    if not any(re.search(r"[A-Za-z]", w) for w in found):
        return None  # `19 \\text{ and }43`
    if all(_IN_MATHEMATICS.fullmatch(w) for w in found) and any(re.search("[A-Za-z]{2}", w) for w in found):
        return None  # `sqrt(2)`, `2pi`, `[0, inf)`, `2xy`
    if all(len(w) == 1 for w in found):
        return tuple(sorted(found)) if all(w.isupper() for w in found) else None
    return tuple(w.lower() for w in found)


def _check_bool(response: str, query: Query) -> Verdict:
    committed = commitment(
        response, query.question, lambda c: bool(re.search(r"\b(?:true|false|yes|no)\b", c, re.IGNORECASE)), query.marked
    )
    clause = committed.text if committed else ""
    clause = _SEEMED.sub("", clause)
    clause = re.sub(
        r"\bnot\s+(?:always|necessarily|generally|in\s+general|actually|quite)\s+(?=true\b)", "not ", clause, flags=re.IGNORECASE
    )
    if _HARDLY.search(clause) or ((both := _BOTH.match(clause)) and both[1].lower() != both[2].lower()):
        return Verdict("no_answer", detail="neither true nor false")
    found = re.findall(r"\b(?:(not)\s+)?(true|false|correct|incorrect)\b", clause, re.IGNORECASE) or re.findall(
        r"^\W*()(yes|no)\b", clause, re.IGNORECASE
    )
    if re.search(
        r"\b(?:wrong|incorrect|not|cannot|doubt|deny|hard)\b[^,.]*\b(?:say|claim|state|whether|tell)\b|(?:n't|\bnot)\b[^,.]*\b(?:say|know|tell|sure|certain|clear|obvious)\b",
        clause,
    ):
        return Verdict("no_answer", detail="neither true nor false")
    if committed and not committed.mark and (first := _FIRST.match(response)) and not REVISED.search(response):
        found = [("", first[1])]  # `False. True would need ...`
    said = {(word.lower() in ("true", "yes", "correct")) != bool(negation) for negation, word in found}
    if len(said) != 1 or re.search(r"\b(?:either|maybe|perhaps|possibly|probably|might|may|could)\b", clause, re.IGNORECASE):
        return Verdict("no_answer", detail="neither true nor false")
    value = said.pop()
    return Verdict("correct" if value == (query.answer.strip().lower() in ("true", "yes")) else "wrong", str(value))


_SEEMED = re.compile(
    r"^.*\b(?:seems?|looks?|appears?|sounds?)\b[^.]*?,\s+but\s+", re.IGNORECASE
)  # at first glance this seems false, but it is true
_HARDLY = re.compile(
    r"\b(?:hardly|scarcely|barely|rarely|never|nothing)\b[^.,;]*\b(?:true|false)\b|\b(?:true|false)\b\W*(?:is|was)(?:n't|\s+not)\b",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\W*(yes|no)\b\s*(?:or|and|/|,)\s*(yes|no)\b", re.IGNORECASE)  # the question's `yes or no`
_FIRST = re.compile(r"[\s*]*(true|false|yes|no)\b[*]*(?=[.!:;\n]|$)", re.IGNORECASE)


def _check_list(response: str, query: Query) -> Verdict | Symbolic:
    clause = commitment(response, query.question, _has_mathematics, query.marked)
    if clause is None or not re.search(r"\d", clause.text):
        return Verdict("no_answer", detail=without(query) if clause is None else "")
    got = re.sub(r"^[^=]*(?:=|\\in\b)\s*(?=[\[({\\])", "", mathematics(clause.text))
    try:
        stated = json.loads(query.answer, parse_float=str)
        golds = [Number(Fraction(v)) for v in stated]
    except (ValueError, TypeError):  # a list of lists, of roots
        if "matrix" in got and (table := re.findall(r"\[([^\[\]]+)\]", query.answer)):
            rows = r" \\ ".join(row.replace(",", " & ") for row in table)
            return Symbolic(rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}", got[:1000], relative=True)
        return Symbolic(query.answer, got[:1000], relative=True)
    got = re.sub(r"(?<![\w\\])[a-z]_?\d?\s*=\s*", "", re.sub(r"\^\s*\{?\s*(?:T|\\top)\s*\}?\s*$", "", got))
    inner = re.fullmatch(
        r"\s*[\[({]?\s*(?:\\begin\{[pb]matrix\})?(.*?)(?:\\end\{[pb]matrix\})?\s*[\])}]?\s*",
        got.replace("\\{", "").replace("\\}", ""),
        re.DOTALL,
    )
    values = [read_number(p) for p in re.split(r",|;|\band\b|\\\\|&", inner[1] if inner else got) if p.strip()]
    if all(v is not None for v in values) and not re.search(r"[\[\](){}]", inner[1] if inner else got):
        right = len(values) == len(golds) and all(
            same(g, v, query.question, relative=True) for g, v in zip(golds, values, strict=True) if v
        )
        return Verdict("correct" if right else "wrong", got[:200])
    return Symbolic(query.answer, got[:1000], relative=True)


def _show(number: Number) -> str:
    value = number.value
    text = str(value.numerator) if value.denominator == 1 else str(value)
    return text[:200] + ("%" if number.percent else "")

"""Signs that a guided response leans on its help: it mentions the hint, states the answer before deriving it, or copies the reference.

Heuristics on text, of the part that the model generated; each says what it found, or None. What they catch and how often they
are wrong is measured in tests/test_leaks.py (planted leaks, and references that had no help); see docs/curation.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from gsi.verify.words import digits

_KIND = r"(?:answer|solution|rationale|explanation|derivation|reasoning|hint|outcome)"
_SHOWN = r"(?:given|provided|supplied|stated|shown|revealed|known|reference|expected|official|sample|model|target|gold|worked|original|suggested|mentioned|listed|disclosed)"
_MENTION = re.compile(
    "|".join(
        (
            r"\b(?:the|this|that|your|a|any) (?P<hint>hints?|clues?)\b",
            r"\b(?P<reference>reference|answer key|solution key|solution manual)\b(?! (?:point|frame|angle|line|level|number|triangle|value))",
            rf"\b(?:the|this|that|your) (?:\w+ )?{_SHOWN} (?:final |correct |full )?{_KIND}(?!s? (?:choice|option))\b",
            rf"\b(?:the|this|that|your) (?:final |correct )?{_KIND} (?:that )?(?:(?:i|we) (?:was|were|am|are|have been) )?(?:is |was |has been |had been )?(?:already )?(?:given|provided|supplied|stated|shown|revealed|told|above)\b(?! by)",
            rf"\b(?:i|we) (?:already |now )?(?:know|knew|was told|were told|am told|are told|have been told|am given|are given|was given|were given) (?:already )?(?:that )?(?:the|what the|this) (?:final |correct )?{_KIND}\b",
            r"\b(?:it|this) (?:is|was) (?:already )?(?:given|stated|told|known|said) that the (?:final |correct )?(?:answer|result)\b",
            r"\b(?:know(?:ing)?|given|told|assuming|suppose) (?:that )?the (?:final |correct )?(?:answer|solution|outcome) (?:is|was|equals|must|should|will|to)\b",
            r"\bthe (?:problem|question|prompt|task|instructions?|statement) (?:says?|states?|tells us|said|stated|gives|gave|mentions?) (?:that )?(?:the )?(?:final |correct )?answer\b",
            rf"\b(?:match(?:es|ing)?|consistent with|agree(?:s|ing)? with|agreement with|in line with|according to|based on|as (?:shown|given|stated|said|explained|written|described|seen|mentioned) in|taken from|following) (?:the|this|your) (?:final |correct |full )?{_KIND}\b",
            r"\bwork(?:ing|ed)? backwards? from the (?:final |correct )?(?:answer|result)\b",
            r"\b(?:(?:my|the|your|an|this|that) (?:first |last |initial )?(?:earlier|previous|wrong|prior|incorrect)|my (?:first|initial|last)) (?P<attempt>attempts?|solution|try|response)\b",
            r"\b(?:the|my|your) (?P<teacher>teacher|tutor)(?:'s)? (?:says?|said|explain(?:s|ed)|point(?:s|ed) out|notes?|noted|mention(?:s|ed)|comments?|remarks?|feedback|advice|suggest(?:s|ed))\b",
            r"\b(?:the|your|this|that|from|using) (?P<feedback>feedback)\b",
            r"\b(?:not|without|never) (?:to )?mention(?:ing)? (?:that )?(?:the|i|we|having|it|this|being)\b",
            r"\bas if (?:i|we) (?:did not|didn'?t|do not|don'?t) (?:already )?know\b",
            r"\b(?:in|using) my own words\b",
            r"\bthe (?:final |correct )?answer (?:is|was) (?:said|told|supposed|known|meant) to be\b",
            r"\bas (?:i|we) (?:was|were|am|are|have been) (?:told|given|shown)\b",
            r"\b(?:given|provided|supplied|partial|example|model|sample) (?:start|opening|beginning|prefix|steps?|solution)\b",
            r"\b(?:first|next|last|opening) (?:steps?|part|lines?) (?:has|have|is|was|were) (?:been |already )*(?:given|provided|supplied|written)\b",
            r"\b(?P<person>teacher|tutor|instructor|mentor|expert|author|grader|coach|assistant)(?:'s|s')? (?:\w+ )?(?:comments?|notes?|remarks?|feedback|advice|hint|tips?|solution|answer|correction|explanation|guidance|suggestion)\b",
            r"\bas (?:the|my|your) (?P<who>teacher|tutor|instructor|mentor|expert|author) (?:says?|said|explain(?:s|ed)|suggest(?:s|ed)|noted|pointed)\b",
            r"\b(?:the|my|your) (?P<meant>teacher|tutor|instructor|mentor|author) (?:had in mind|meant|wanted)\b",
            r"\bthe (?P<found>assistant|author|student) (?:found|answered|got)\b",
            r"\b(?:the|your|this|that|a) (?P<advice>guidance|correction|ground truth|expected output|answer field|answer sheet)\b",
            r"\b(?:with|following|using|thanks to|per|considering|after) (?:the|your|this|that) (?P<tip>suggestions?|tips?|remarks?|comments?|advice|guidance|corrections?|review)\b",
            r"\bthe (?P<remark>remark|comment|note) (?:on my|says|said|above)\b",
            r"\bthe (?P<key>key) (?:says|gives|has|shows|states)\b|\banswer in the key\b",
            r"\b(?:you are|you're) right\b|\byour (?:solution|answer|result|explanation)\b|\byou (?:gave me|said is|marked|told me|showed me|provided|pointed out)\b",
            r"\b(?:i|we) (?:was|were|have been|had been) (?:told|informed|asked to reach|given to reach|handed)\b",
            r"\b(?:handed|disclosed|revealed) (?:to )?(?:us|me)\b|\b(?:has|have) been (?:disclosed|revealed)\b|\b(?:already|was|been) (?:already )?revealed\b",
            r"\b(?:compare(?:d)? (?:this|it|that)? ?(?:to|with)|know from|see from|see in|start of|beginning of|author of) the (?:final |correct |full )?solution\b(?! (?:of|to|set))",
            rf"\b(?:the|an?) {_KIND} (?:i|we) (?:received|got|saw|have seen|was given|were given|had)\b",
            rf"\b{_KIND} (?:\S+ )?(?:that (?:was|is) )?given to (?:us|me)\b",
            r"\bas (?:was )?(?:already )?(?:hinted|indicated in the|revealed)\b",
            r"\b(?:answer|result|value) (?:that )?(?:i|we) (?:was|were|am|are) asked to (?:reach|get|show)\b",
            r"\bmy (?:earlier|previous|first|initial|last|wrong|old) (?:\w+ )?(?:answer|result|calculation|computation|value)\b|\bmy (?:answer|result|solution) of \$?\d|\bmy answer (?:\w+ ){0,3}was (?:marked|wrong|rejected|incorrect)\b",
            r"\b(?:my|the) mistake (?:last time|before|earlier|you (?:marked|found|pointed))|\breview of my\b|\bit was rejected\b|\bwas marked (?:as )?(?:wrong|incorrect)\b",
            r"\b(?:in|on|at) (?:the|my) (?:first|last|previous|earlier) (?:try|attempt|submission)\b|\bi (?:did|was|had|got|have)[^.]{0,80}\b(?:the first|last) time\b|\bthis time,? i\b",
            r"\b(?:i|we) (?:previously|initially|originally|earlier) (?:had )?(?:answered|wrote|got|gave|multiplied|divided|added|subtracted|forgot|used|computed|calculated|counted|said|thought|took|assumed)\b",
            r"\b(?:initially|previously|originally|before),? (?:i|we) (?:had )?(?:answered|wrote|got|gave|multiplied|divided|added|subtracted|forgot|used|computed|calculated|counted|said|took)\b",
            r"\bi (?:had forgotten|forgot|missed|overlooked) [^.]{0,60}\bbefore\b|\bi made an? (?:error|mistake) (?:before|earlier|last)\b|\bsince i got \S+ (?:earlier|before)\b",
            r"\b(?:let me|i will|i'll|i) (?:redo|re-?solve|redid|re-?work) (?:this|the|it)\b|\bre-?solving (?:after|the|this)\b|\bcorrected (?:solution|version|answer|attempt)\b",
            r"\b(?:i|we) (?:was|were|am|are|have been) (?:already )?(?:provided|supplied|given the (?:final |correct )?(?:result|outcome|value|total))\b",
            r"\b(?:outlined|sketched|laid out|shown|provided|supplied|explained|written) (?:out )?(?:for|to) (?:us|me)\b",
            r"\b(?:opening|start|beginning|part|steps?|lines?|number|value|result) (?:that )?(?:i|we) (?:was|were|have been) (?:given|handed|shown)\b",
            r"\b(?:from|in|with|by) the (?:answer )?(?P<list>key|prompt)\b|\bthe (?P<prompt>prompt)'s\b",
            r"\b(?:rewritten|revised|corrected|redone|fixed) my\b|\bmy (?:former|revised|corrected|updated|initial|previous|first|earlier|last) (?:solution|answer|submission|response|version)\b",
            r"\b(?:the|my|your) (?P<asks>teacher|tutor|instructor|mentor|coach|grader) (?:has |had )?(?:ask(?:s|ed)|want(?:s|ed)|tell(?:s)?|told|note[sd]|point(?:s|ed)|remind(?:s|ed)|correct(?:s|ed)|wrote|writes|hint(?:s|ed))\b",
            r"\bagree[sd]? with the (?P<agrees>teacher|tutor|instructor|key|author)\b|\bthe (?:final )?answer (?:is|was) (?:already )?known\b",
            r"\bwhere i went wrong\b|\bi previously\b|\bi (?:answer|answered|said|wrote|got)\b[^.?!]{0,40}\b(?:last time|before)\b|\b(?:errors?|mistakes?) you\b",
            r"\bthe (?:reference |given |full )?solution (?:assumes|uses|says|shows|computes|takes|counts|multiplies|divides|adds|subtracts|does|starts|goes|states|tells)\b",
            rf"\b{_KIND} (?:that )?(?:came|comes|goes|went) with\b|\b{_KIND} (?:i|we) have\b|\b(?:someone|somebody) (?:has )?(?:kindly )?(?:pointed|told|noted)\b",
            rf"\b{_KIND} (?:is|was) (?:already )?known to be\b|\b(?:looked|looking|look) at the (?:{_KIND})\b(?! choice)|\b(?:in|at|from) the {_KIND} (?:at the|they|you|i|we|on|above|below)\b",
            r"\b(?:i|we) (?:was|were|am|are) supposed to (?:arrive|reach|get|show|obtain)\b|\b(?:had|have) (?:i|we) not been (?:given|told|shown)\b|\bafter being (?:told|reminded|shown|corrected)\b",
            r"\b(?:note|tip|comments?|remarks?|message|advice|help) (?:that )?(?:i|we) (?:received|got|was given|were given)\b|\bthe critique\b|\bhint used\b|\byour (?:remarks?|comments?|notes?|hints?|tips?|feedback|advice|suggestions?|correction)\b",
            r"\b(?:on|in) my (?:second|third|next|new) (?:attempt|try)\b|\bmy (?:earlier|previous) (?:work|slip|error|mistake|reasoning)\b|\blast time around\b|\bthis (?:revised|corrected|updated) (?:answer|solution)\b|\bissues? you raised\b",
            rf"\b(?:suggested|recommended) (?:first |next )?(?:step|approach|start|method)\b|\b(?:explain|show|see) how the {_SHOWN} (?:result|answer|value)\b|\bthe (?P<version>teacher|tutor|instructor|mentor|author)'s (?:version|way|method|approach)\b",
            r"\bprevious (?:round|turn|response|message|submission)\b|\byou (?:already |also |have )?(?:mentioned|told|said|gave|stated|noted|asked me|wrote|suggested|corrected|explained)\b",
            r"\bsame as the (?:answer|solution|ground truth|key)\b",
        )
    ),
    re.IGNORECASE,
)


def mention(text: str, question: str) -> str | None:
    """The words with which the text gives away that it had help; words that the question itself uses do not count."""
    asked = " ".join(question.lower().split())
    flat = " ".join(text.replace("’", "'").split())
    for m in _MENTION.finditer(flat):
        own = next((word for word in m.groupdict().values() if word), m.group())
        if own.lower() not in asked:
            return m.group()
    return None


# --------------------------------------------------------------------------------------- the answer before its derivation

_NUMBER = re.compile(r"[-−]?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-−]?\$?\d+(?:\.\d+)?(?:/\d+)?")
_SAYS = (
    r"(?:\b(?:answer|result|solution|total|outcome|final value)\b(?: to this| here| of this| we (?:want|need|seek))?\s*(?:will be|must be|should be|has to be|turns out to be|comes out (?:as|to)|is|equals|=|:)"
    r"|\\f?boxed\s*\{|####?|\b(?:it|this|that) (?:must|should|will|has to) (?:be|equal|come to|come out (?:as|to))"
    r"|\b(?:need|want|have|going|aim) to (?:show|get|reach|arrive at|obtain|end up with|derive|prove)(?: that)?(?: \w+){0,6}?)"
    r"(?:\s|[:$*(~]|\\[(\[]|exactly|option|choice|indeed|simply|equal to|the|number|value)*"
)
_DERIVES = re.compile(r"\d[^=\n]{0,80}[-+*/×÷x^][^=\n]{0,80}=|\\frac|\\times|=\s*\$?[-\d(]")


# an operation between numbers, in signs or in words
_CALCULATES = re.compile(
    r"\d[\d.,/%]*\)?\s*(?:[a-zA-Z]+\s+){0,3}[-+*/×÷x^]\s*(?:[a-zA-Z]+\s+){0,2}[$(]*\d|\d\s*=|=\s*[$(]*\d|\d%\s+of\s+\$?\d|\\frac|\\times"
    r"|\b(?:plus|minus|times|divided by|multiplied by|subtract(?:ing)?|adding|dividing|multiplying|half of|twice|percent of)\b"
)


def early_answer(text: str, answer: str, options: Sequence[str] | None = None, question: str = "") -> str | None:
    """The words that announce the final value before anything is calculated, where calculations follow; else None.

    Announced is what a mark or a claim says (`The answer is 72`). With the question, also a number that it does not give, stands before all
    operations and is found once more behind them (`She has 72 left. ...`).
    """
    if (work := _DERIVES.search(text)) is not None:
        for value in _values(answer, options):
            m = re.search(_SAYS + value, text, re.IGNORECASE)
            if m and m.start() < work.start() and _DERIVES.search(text, m.end()):
                return m.group()
    if question and _NUMBER.fullmatch(answer.strip()):
        text, question = digits(text), digits(question)
        value = rf"(?<![\d.,/])\$?{_values(answer, None)[0]}"
        m, work = re.search(value, text), _CALCULATES.search(text)
        if m and work and m.end() <= work.start() and not re.search(value, question) and re.search(value, text[work.start() :]):
            return text[: m.end()]
    return None


def _values(answer: str, options: Sequence[str] | None) -> list[str]:
    """Patterns of the answer as it may be written: a number with or without thousands commas, a letter of an option, text as it is."""
    found = [answer.strip()]
    letter = found[0].upper()
    if options and len(letter) == 1 and 0 <= (i := ord(letter) - ord("A")) < len(options):
        found.append(options[i].strip())
    patterns = []
    for value in found:
        if _NUMBER.fullmatch(value):
            digits, dot, rest = value.lstrip("$").replace(",", "").partition(".")
            body = ",?".join(re.findall(r"\d{1,3}(?=(?:\d{3})*$)", digits)) if digits.isdigit() else re.escape(digits)
            patterns.append(rf"\$?{body}{re.escape(dot + rest)}(?!\d|[.,]\d|\s*[-+*/×÷^=]\s*\d)")
        elif value:
            patterns.append(re.escape(value) + r"(?![A-Za-z0-9])")
    return patterns


# --------------------------------------------------------------------------------------- near-copies of the reference

SIZE = 3  # words of an n-gram: enough survive a word exchanged here and there
FEWEST = 12  # n-grams below which overlap says nothing: two short solutions of one question share their words by need
ALIKE, SHORTEST = 0.65, 20  # difflib's ratio over words and numbers, of texts with at least so many of them


def copy(text: str, reference: str, most: float = 0.5) -> str | None:
    """Says how much of the text's word sequences stands in the reference too, where that is more than `most`, or how alike both are; else None."""
    share = overlap(text, reference)
    if share is not None and share > most:
        return f"{share:.0%} of its word sequences are the reference's"
    own, theirs = _words(text), _words(reference)
    if SHORTEST <= len(own) <= 2 * len(theirs) and (ratio := SequenceMatcher(None, own, theirs, autojunk=False).ratio()) > ALIKE:
        return f"{ratio:.0%} alike, word by word"
    return None


def overlap(text: str, reference: str) -> float | None:
    """Share of the text's n-grams that the reference has; None for a text with fewer than `FEWEST`.

    Counted are n-grams of `SIZE` words and numbers with at least two words in them, since right solutions share their equations.
    """
    own, theirs = _grams(text), set(_grams(reference))
    return sum(g in theirs for g in own) / len(own) if len(own) >= FEWEST else None


def _grams(text: str) -> list[tuple[str, ...]]:
    words = _words(text)
    grams = (tuple(words[i : i + SIZE]) for i in range(len(words) - SIZE + 1))
    return [g for g in grams if sum(w[0].isalpha() and len(w) > 1 for w in g) >= 2]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?", re.sub(r"<<[^<>]*>>", "", text).lower().replace(",", ""))

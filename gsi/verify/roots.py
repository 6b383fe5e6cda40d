"""The words of a text that say something, without the endings of plural and tense."""

from __future__ import annotations

import re

from gsi.verify.words import VALUES

_IDLE_WORDS = """a an the this that these those it its he she his her him hers they them their theirs we our us i you your my me of in on at to for
    from by with as and or but so thus therefore hence then now is are was were be been being am do does did has have had having will would can
    could shall should may might must not no how many much what which who whose whom when where why there here if than more less fewer most least
    all total altogether both each every other another some any only just also too very still left over number amount answer result value find
    calculate compute determine give given get gets got sum combined together per first finally means which since because equal equals need needs
    needed order up out about into during after before long same remaining remain remains rest receive receives received none times time hour
    minute second day week month year hours minutes days weeks months years"""
IDLE = frozenset(_IDLE_WORDS.split()) | frozenset(VALUES)
# irregular forms, and words of one meaning here
_FORM_WORDS = """sold:sell spent:cost gave:give given:give ate:eat eaten:eat bought:buy made:make took:take taken:take kept:keep lost:lose found:find
    paid:cost pay:cost pays:cost spend:cost spends:cost spending:cost price:cost charge:cost charges:cost charged:cost drew:draw drawn:draw ran:run
    drove:drive driven:drive won:win caught:catch flew:fly flown:fly wrote:write written:write grew:grow grown:grow brought:bring saw:see seen:see
    sent:send built:build slept:sleep swam:swim rode:ride went:go gone:go came:come drank:drink drunk:drink earned:make earns:make earn:make
    earning:make earnings:make feet:foot men:man women:woman children:child kids:child kid:child people:person dollars:dollar money:dollar
    bucks:dollar broke:break broken:break stole:steal stolen:steal threw:throw thrown:throw"""
_FORMS = dict(pair.split(":") for pair in _FORM_WORDS.split())


def root(word: str) -> str:
    """The word without the endings of plural and tense: `sells`, `sold` and `selling` are one."""
    word = word.lower()
    if word not in _FORMS:
        ending = next(
            (e for e in ("ing", "ed", "es", "s", "d") if word.endswith(e) and len(word) - len(e) >= 3 and not word.endswith("ss")), ""
        )
        word = word[: len(word) - len(ending)] if ending != "d" or word.endswith("ed") else word
        if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "sl":
            word = word[:-1]
    return re.sub(r"(?<=..)[eyi]$", "", _FORMS.get(word, word))


def content(text: str) -> frozenset[str]:
    """The roots of the words that say something."""
    words = re.findall(r"[A-Za-z]{3,}", re.sub(r"'s\b|\\[a-zA-Z]+", " ", text))
    return frozenset(root(w) for w in words if w.lower() not in IDLE)

"""What marks an answer in a response, takes it back, quotes it, or follows it: the patterns that `answers.py` reads by."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?=\{)|(?P<bare>\w))")
# a box that is a part of an expression
OPERAND = re.compile(
    r"(?:[\d})]|(?<![A-Za-z])[a-z])\s*(?:[-+/]|\\pm\b)\s*$|^[^=]*(?:[\d})]|(?<![A-Za-z])[a-z])\s*(?:\*|\\(?:cdot|times)\b)\s*$|\\(?:sqrt|ln|log|sin|cos|tan)\s*\{?\s*$"
)
OPERATED = re.compile(
    r"\s*(?:\^(?!\s*\{?\s*\\circ)|[\s$]*(?:is|was)\s+what\b[^.\n]*\bif\b|\\(?:cdot|times)\b|[-+*/]\s*\d|[\s$}.)]{0,4}\?|[\s$]*(?:(?:does|do|did)(?:n't|\s+not)\s+(?:satisfy|work|fit|hold)|(?:is|was)(?:n't|\s+not)\s+(?:the|an?|right|correct|valid|possible)\b))"
)
MARK = re.compile(
    r"(?:####"
    r"|\b(?:answer|ans|option|choice)(?:\s+(?:choice|option))?[ \t.\-]*(?=\(?(?-i:[A-E])\)?\s*(?:[.\n]|$|(?:is|as)\b|[$]?\d|rs\b))"
    r"|(?<!/)\b(?:answer|ans|(?:correct|right|final|my|best)\s+(?:option|choice|pick)|(?:true|correct|actual|real)\s+(?:value|result|total))\b(?!\s*(?:choices|options)|\s*key)"
    r"(?:[^\n.:=?!]{0,60}?(?:\bis\b|\bare\b|\bwould\s+be\b|\bmust\s+be\b|\bequals\b|\bbecomes\b)|[^\n.:=?!\d]{0,40}?(?::|=(?!=)))"
    r"|\b(?:option|choice)\s*\n\s*(?=\(?(?-i:[A-E])\)?\s*(?:[.\n]|$))"
    r"|(?:(?<=\n)|^)[ \t]*#{1,6}[ \t]*(?:\*\*)?(?:the\s+)?(?:final\s+)?answer(?:\*\*)?[ \t]*(?=\n)"
    r"|\bfinal(?:\s+(?:result|value))?[ \t]*:[ \t]*(?=\S)"
    r"|\banswer\s+-\s+(?=\S)|\b(?:answer|ans)\s+(?=[a-e]\s*(?:\.\s*)?$)"
    r")",
    re.IGNORECASE,
)
# an answer that is quoted, not given: nothing from here on counts
QUOTED = re.compile(
    r"\b(?:reference|gold(?:en)?|expected|official|ground[- ]truth|textbook)(?:'s)?\s+(?:final\s+)?(?:answer|solution|rationale)\b"
    r"|\b(?:the\s+)?(?:(?:correct|right|true)\s+)?answer\s+(?:\w+\s+){0,4}?(?:according\s+to|in|from)\s+(?:the|my)\s+(?:answer\s+)?(?:key|book|textbook|solutions?)\b"
    r"|(?:(?<=\n)|(?<=[.!?]\s))[ \t]*(?:reference|gold|expected|ground[- ]truth|label|target)\s*:(?!\s*\n)"
    r"|\banswer key\b|\banswer\s+(?:sheet|book|guide)\s+(?:says|gives|has|shows|states)\b",
    re.IGNORECASE,
)
# behind an answer, in a paragraph of its own: it grades itself
TOLD = re.compile(r"\n[ \t]*\n[ \t*]*(?:the\s+)?(?:correct|right|true)\s+answer[*]*\s*:", re.IGNORECASE)
# a base model that goes on with the next example of its prompt: what it answers there is the answer to another question
NEXT = re.compile(
    r"\n[ \t]*(?:[#*>]+[ \t]*)?(?:next\s+|new\s+)?(?:question|q|problem|exercise|example|user|human|instruction)\b[ \t]*#?\d*[*]*[ \t]*[:.][*]*(?=\s|\w)"
    r"|(?:\n|(?<=[.!?])[ ])[ \t]*(?:(?:as\s+an?|an?|here(?:'s|\s+is)\s+an?)\s+)?(?:bonus|similar|related|side|follow-?up|extra)\s+(?:exercise|question|problem|puzzle)\b"
    r"|\n[ \t]*bonus:\s+(?:if|what|how)\b"
    r"|\n[ \t]*(?:###|##|#)[ \t]*(?:question|problem|instruction|user)\b|<\|(?:im_start|im_end|endoftext|end_of_text|eot_id|eom_id|end|user|assistant|eos)\|>"
    r"|\[/?INST\]|<(?:end_of_turn|start_of_turn|eos|bos)>|<｜[^<>｜]{1,30}｜>",
    re.IGNORECASE,
)
EXPLAINS = re.compile(
    r"(?<=[.!])[ \n]+(?:(?:sanity\s+)?(?:check|verification)|let\s+(?:me|us)\s+(?:verify|check))\s*:(?!(?s:.{0,400})(?:\bnot\b|\bwait\b|\boops\b|\bwrong\b|\bso\b|\\ne))|"
    r"\n[^\w\n]{0,10}(?:explanation|reasoning|justification|rationale|proof|verification|check)\W*[:\n]",
    re.IGNORECASE,
)
# what is said behind an answer without being one
REMARK = re.compile(
    r"\W*(?:(?:this|that|it)\s+is\s+because\b|because\b(?!.*,)|\(?(?:note|remark|hint|nb|p\.?s|ps|fun\s+fact|recap|tip)\s*:|to\s+recap\b|(?:(?:yes|good|great|ok|okay)\b\W*)?(?:that|this|it|which|everything)\s+(?:matches|checks|works|agrees|adds\s+up|fits)\b|(?:this|the)\s+(?:solution|calculation|result|method|computation)\s+(?:uses|used|assumes|follows)\b)"
    r"(?!.*\b(?:so|thus|therefore|hence|answer|total|in\s+all|altogether)\b)",
    re.IGNORECASE | re.DOTALL,
)
BRACKETED = re.compile(r"\s*\((?:[A-Z][a-z']+|[$]?\d[\d.,]*\s+(?:would|was|is\s+not|isn't))\s[^()\n]*\)\W*$")  # (That makes 5 baskets.)
# `Options A and C are wrong` takes back nothing
OTHERS = re.compile(r"\b(?:options?|choices?|others?|rest|distractors?|[A-H](?:\s*,|\s+and|\s+or)|common|not)\b[^.!?\n]*$", re.IGNORECASE)
POLITE = re.compile(
    r"\W*(?:i hope|hope (?:this|that)|let me know|thank|thanks|feel free|would you like|do you|is there anything|if you (?:have|need|want)|good luck|"
    r"please|happy to|you're welcome|great job|have a |(?:right|good|great|done|ok)\W*$)",
    re.IGNORECASE,
)
REVISED = re.compile(
    r"(?<=[.!?]\s)(?:no|hmm+)\b(?!\s+(?:one|other|more))[\s,:;.!-]*"
    r"|\b(?:no,?\s+wait|wait|actually|correction|oops|sorry|scratch\s+that|i\s+meant?|re-?check(?:ing|ed)|on\s+second\s+thought|mistaken?|incorrect|wrong|(?:just|only)\s+kidding|"
    r"or\s+rather|oh,\s+but|hold\s+on|hang\s+on|my\s+bad|(?:take|took)\s+(?:it|that|this)\s+back(?:\s+and\s+settle\s+(?:on|for))?|chang(?:e|ed)\s+my\s+(?:mind|answer|choice)|"
    r"let\s+me\s+(?:correct|fix|revise)|let\s+me\s+(?:re-?)?(?:check|think|do|calculate))\b[\s,:;.!-]*",
    re.IGNORECASE,
)
# a change of mind inside a sentence: it needs the punctuation, `the dresses that she actually has` is none
RECONSIDERED = re.compile(
    r"(?:^|[-,.;:!?]\s*)\b(?:no,?\s+wait|wait|actually|correction|oops|sorry|scratch\s+that|(?<=[-,.;:!?]\s)no)\b\s*[,;:.!-]+\s*(?:i\s+meant?\s+)?|[-,.;!?]\s*\bi\s+meant?\s+",
    re.IGNORECASE,
)
# an answer that somebody had before, or others have
ONCE = re.compile(
    r"\b(?:false|untrue|wrong|incorrect|impossible|unlikely|doubtful)\s+that\s+(?:the\s+)?$"
    r"|\b(?:if|suppose|supposing|assuming|whether|unless|had|were)\b(?:(?!\bthen\b)[^,;:])*$|\b(?:wrong|incorrect|false|tempting|naive|obvious)\s+$"
    r"|\b(?:first(?:ly)?|initially|originally|before|earlier|previously|at first)\W+(?:\w+\W+){0,2}?(?:thought|guess(?:ed)?|believed|assumed|said|wrote|answered)\b[^,;]*$"
    r"|\b(?:express|write|round|simplify)\s+(?:the|your|our|this)\s+$"
    r"|\b(?:people|students|someone|somebody|one|you)\s+(?:\w+\s+)?(?:say|think|guess|assume|answer|believe|claim)s?\b[^,;]*$",
    re.IGNORECASE,
)
# a correction that states its own result
RESULT = re.compile(
    r"\b(?:result|total|value|answer|number|amount|cost|price|sum|area|probability)\s+(?:\w+\s+){0,3}?(?:is|becomes|equals|comes|should\s+be|must\s+be|would\s+be|=)",
    re.IGNORECASE,
)
CHECKS = re.compile(
    r"(?:^|[.!\n$\]])[\s(]*(?:we\s+can\s+(?:also\s+)?(?:check|verify|see)|(?:to|let\s+us|let's)\s+(?:check|verify)|as\s+a\s+check|checking|check:|note|notice|remark|indeed|for\s+(?:example|instance))\b",
    re.IGNORECASE,
)
STRONG = re.compile(
    r"(?:(?<=[.!?]\s)|(?<=\n)|(?<=\.\n\n))(?:so|thus|therefore|hence|finally|no|wait|but|however|the\s+(?:\w+\s+)?(?:answer|result|total))\b",
    re.IGNORECASE,
)
UNDONE = re.compile(
    r"\b(?:forgot|missed|overlooked|miscounted|misread|miscalculated|is\s+wrong|isn't\s+right|not\s+right|reconsider|re-?think)\b",
    re.IGNORECASE,
)
ASIDE = re.compile(
    r"\W*(?:(?:we\s+(?:can\s+)?)?(?:check|verif)|note|because|since|this\b|here|where|indeed|for example|e\.g|i\.e|as\b|i\s+(?:also\s+)?considered\b|i hope|let me know|\[asy|\(|.*\\end\{(?![pbvB]?matrix))",
    re.IGNORECASE,
)
# the character comes first and what may not stand before it after that: a pattern that begins with look-behinds tries them everywhere
SENTENCE_END = re.compile(
    r"[.!?](?=\s|$)(?!(?<=\d!)[ ][a-z])(?<!\b[A-Za-z].)(?<!\bsq.)(?<!\blbs.)(?<!\boz.)(?<!\bft.)(?<!\bhrs.)(?<!\bvs.)(?<!\bRs.)(?<!\brs.)(?<!\bmin.)(?<!\bMr.)(?<!\bMrs.)(?<!\bMs.)(?<!\bDr.)(?<!\bSt.)"
    r"|[.](?=\s|$)(?<=\b[A-H].)|[.](?=\s+(?:So|Thus|Hence|Therefore)\b)|\n+"
)
LEAD = re.compile(
    r"(?:[\s:=,;>\-]{0,8}(?:it(?:'s|\s+is|\s+(?:must|should|would)\s+be)|therefore|thus|hence|yes(?=[,\s]+\$?\d)|no(?=,?\s+it(?:'s|\s+is)\s+-?[$]?\d)|so|then|simply|just|exactly|approximately|about|around|roughly|equal to|given by|now|that)\b"
    r"|\s*[:=]|\s*\\approx)+(?!\s*\d*\s*[-+*/])",
    re.IGNORECASE,
)

CONCLUDES = re.compile(
    r"\W*(?:so|thus|therefore|hence|finally|in total|total|in all|altogether|together|combined|overall|consequently|this|it|i|the|he|she|they|we|there|(?:and|but)\b(?=.*\b(?:so|thus|therefore|hence)\b))\b|^[\s$\\]*-?\d|^\W*(?-i:[A-E])\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)",
    re.IGNORECASE,
)
DOUBT = re.compile(r"\b(?:not|no|cannot|impossible|unsure|unknown|guess|maybe|either|or)\b|n't\b", re.IGNORECASE)
SAYS = re.compile(r"\d|\\\w|\$|(?-i:\b[A-E]\b)|=|\b(?:true|false)\b|^(?:yes|no)\b", re.IGNORECASE)

UNFINISHED = re.compile(
    r":\s*\Z|\b(?:and|or|the|an|of|to|(?<!\bit )is|are|was|were|by|with|for|from|because|so|that|which|than|then|if|but|per|his|her|their|its|he|she|they|we)\s*\Z"
    r"|\b(?:and|then|so|he|she|they|we|which|who)\s+(?:earn|get|need|give|take|buy|sell|ha|do|pay|make|spend|use|want|eat|leave|find|can|will|must|have)\w{0,2}\s*\Z",
    re.IGNORECASE,
)
# a first step is announced, not an answer
PLAN = re.compile(
    r"\W*(?:(?:\w+\s+)?first(?:ly)?,\s|to\s+(?:solve|answer|find|begin|start|calculate|determine)\b[^.]*?\b(?:first|start|begin)\b|let(?:'s|\s+us)\s+(?:first|start|begin)\b)",
    re.IGNORECASE,
)
TAGS = re.compile(r"</?(?:s|b|i|u|p|br|em|strong|answer|span|div|sup|sub)\s*/?>", re.IGNORECASE)
BLAMES = re.compile(r"wrong|incorrect|mistake", re.IGNORECASE)
ADMITS = re.compile(r"sorry|oops|scratch|correction|mistake|wrong|incorrect|i\s+mean", re.IGNORECASE)
DENIED = re.compile(
    r"[\s$.]*,\s*(?:which|but\s+(?:that|this|it))\s+(?:is|was)(?:\s+not|n't)\s+(?:right|correct|(?:the|my|our)\s+(?:\w+\s+)?(?:answer|value|result))\b",
    re.IGNORECASE,
)
ITEM = re.compile(r"(?:\n|^)[ \t]*(?:\(?(?:\d{1,2}|[a-h])[.):]|[-*])[ \t]+([$]?-?\d[\d.,]*)(?=\s*(?:\n|$))")
# at the end of a correction: `Perimeter = 12`, `I'll go with c.`
STATED = re.compile(
    r"(?:(?:^|[.\n])\s*(?:[A-Z]?[a-z]+\s+){1,4}\$?\s*=\s*([^=\n]+?)|\b(?:go|going|settle|settling|stick|sticking)\s+(?:with|on)\s+(?:option\s+)?(\(?[A-Ea-e]\)?))\$?\W*$"
)
# order counts, so it is 360; ..., so p - q should be 21
FOLLOWS = re.compile(
    r",\s+(?:so|thus|therefore|hence)\s+((?:it|that|this|the\b[^,]*?|[$\w\s^+*/\\-]{1,30}?)(?:'s|\s+is|\s+should\s+be|\s+must\s+be|\s+becomes)\s+[^,]*\d[^,]*)$",
    re.DOTALL,
)
# a last remark in brackets: what a mistake would give
HINDSIGHT = re.compile(r"(?<=[\w.$}])\s+\((?:if\s+(?:you|one|we)|not)\b[^()]*\)\W*$", re.IGNORECASE)

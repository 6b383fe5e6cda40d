"""Units, opposites and comparisons: the tables by which `subject.py` tells what a number is of."""

from __future__ import annotations

import re

from gsi.verify.asked import stem

UNITS = {
    "time": "second sec|minute min|hour hr|day|week|month|year yr|decade",
    "mass": "milligram mg|gram g|kilogram kg kilo|pound lb|ounce oz|ton tonne",
    "length": "millimeter mm millimetre|centimeter cm centimetre|meter m metre|kilometer km kilometre|inche inch|foot feet ft|yard|mile mi",
    "volume": "milliliter ml millilitre|liter l litre|gallon|quart|pint",
}
# word -> (what it measures, the unit)
UNIT = {stem(word): (kind, unit.split()[0]) for kind, units in UNITS.items() for unit in units.split("|") for word in unit.split()}
# asked for, its contrary right before the number, what else in the sentence makes it right: `the buyer pays $60` does not say what she saves
CONTRARY = [
    (
        re.compile(rf"\b(?:{asked})\b", re.IGNORECASE),
        re.compile(rf"\b(?:{contrary})\s+(?:\w+\s+){{0,2}}[$]?\d", re.IGNORECASE),
        re.compile(rf"\b(?:{saved})", re.IGNORECASE),
        re.compile(rf"\b(?:{contrary.replace('do|does|did|', '')})\b|\beat\b", re.IGNORECASE),
    )
    for asked, contrary, saved in (
        ("save|saves|saved|savings?|discounts?|off", "pays?|paid|costs?", r"(?:sav(?:e|es|ed|ings?)|discounts?|off)\b"),
        ("pays?|paid|costs?|spends?|spent", "saves?|saved|earns?|earned", r"(?:pays?|paid|costs?|spends?|spent)\b"),
        ("earn(?:s|ed|ings)?|makes?|made|profits?", "spends?|spent|pays?|paid|costs?", r"(?:earn(?:s|ed|ings)?|makes?|made|profits?)\b"),
        (
            "left|remain(?:s|ed|ing)?|still|keeps?|kept|free",
            r"(?<!it )(?<!this )(?<!that )(?:do|does|did|completes?|finish(?:es)?|ate|eats?|gave|given|gives?|sold|sells?|used|uses|lost|loses?|spent|spends?)",
            r"(?:left|remain(?:s|ed|ing)?|still|keeps?|kept|leav(?:es|ing)|(?:has|have|had|is|are)\s+[$]?\d)",
        ),
    )
]
# behind a number: a comparison or a share, which answers only who asks for one
COMPARED = re.compile(
    r"\s*(?:[A-Za-z]+\s+)?(?:more|less|fewer|extra|cheaper|older|younger|taller|shorter|longer|heavier|faster|slower)\W*$"
    r"|\s*(?:[A-Za-z]+\s+)?(?:below|above|less\s+than|more\s+than)\s+(?:the|his|her|its|their)\b",
    re.I,
)
TIMES = re.compile(r"\s+times\s+(?:the|as|more|his|her|its|their)\b", re.IGNORECASE)
SHARE = re.compile(
    r"\s*(?:[A-Za-z]+\s+)?(?:(?:each|apiece)\W*$|(?:per|each|every|an?(?=\s+(?:second|minute|hour|day|week|month|year|piece|person)\b))\s+(?:\d+\s+)?([a-z]+))",
    re.IGNORECASE,
)
BACK = re.compile(r"\s*(?:[A-Za-z]+\s+)?back\b", re.IGNORECASE)
OF_EACH = re.compile(r"(?:\s+[A-Za-z]+){0,3}?\s+(?:on|in|for|to|at)\s+each\b", re.IGNORECASE)
MONEY = frozenset(("dollar", "money", "cent", "rupee", "euro", "pound", "profit", "buck"))
OPPOSITE = {"more": {"fewer", "less"}, "fewer": {"more"}, "less": {"more"}, "older": {"younger"}, "younger": {"older"}}
OPPOSITE |= {"longer": {"shorter"}, "taller": {"shorter"}, "shorter": {"longer", "taller"}, "heavier": {"lighter"}, "lighter": {"heavier"}}
OPPOSITE |= {"faster": {"slower"}, "slower": {"faster"}, "higher": {"lower"}, "lower": {"higher"}}
EACH = re.compile(r"^\W*(?:so|thus|therefore|hence)?\W*each\s+([a-z]+)", re.IGNORECASE)
MEASURE = frozenset(["cm", "mm", "km", "kg", "ml", "m"])

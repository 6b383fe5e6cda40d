"""Answer checking: a table of cases, the pool's statuses, properties, and the golds of the real data against themselves."""

import gzip
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsi import GsiError, Query, Verdict, grade
from gsi.verify import CHECKERS, make_grader

OK, WRONG, NONE = "correct", "wrong", "no_answer"
BAD = "not correct"  # wrong or no_answer

NUMBERS = [
    # (gold, response, expected), exact integers
    ("72", "The answer is 72", OK),
    ("72", "#### 72", OK),
    ("72", "72", OK),
    ("72", "Answer: 72.", OK),
    ("72", "**Answer:** $72$", OK),
    ("72", "**The final answer is 72 clips.**", OK),
    ("72", "\\boxed{72}", OK),
    ("41", "so we get \\boxed {41}", OK),
    ("41", "So it is $\\boxed{41 \\text{ apples}}$.", OK),
    ("72", "She sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips altogether in April and May.", OK),
    ("72", "The answer is:\n\n72", OK),
    ("72", "The answer is\n\\[\n72\n\\]", OK),
    ("72", "The answer is 72, because 3 * 24 = 72.", OK),
    ("72", "The answer is 72!", OK),
    ("72", "The answer is seventy-two.", OK),
    ("105", "The answer is one hundred and five.", OK),
    ("12", "The answer is a dozen... that is, twelve", OK),
    ("3", "The answer is three apples", OK),
    ("2880000", "The answer is 2.88 million", OK),
    ("10000", "The answer is 1e4", OK),
    ("10000", "The answer is $10^4 = 10,000$", OK),
    ("120000", "The answer is 1.2 \\times 10^5", OK),
    ("1500", "The answer is $1,500.00 per month", OK),
    ("1500", "The answer is \\$1{,}500", OK),
    ("150000", "The answer is Rs. 1,50,000", OK),
    ("-5", "The answer is −5", OK),
    ("-5", "The answer is -5 degrees", OK),
    ("5", "The answer is -5", WRONG),
    ("5", "The answer is 5kg", OK),
    ("5", "The answer is 10/2", OK),
    ("18", "He makes 9 * 2 = $18 every day at the market.", OK),
    ("18", "The answer is 18 dollars for 9 eggs", OK),
    ("311", "The answer is 310, no wait, 311", OK),
    ("310", "The answer is 310, no wait, 311", WRONG),
    ("310", "\\boxed{310}\nActually, I forgot one. So the total is 311.", WRONG),
    ("311", "\\boxed{310}\nActually, I forgot one. So the total is 311.", OK),
    ("310", "\\boxed{310}. So she has 311 apples.", WRONG),
    ("311", "\\boxed{310} is wrong. Let me recheck. \\boxed{311}", OK),
    ("310", "#### 310\nThe answer is 312", WRONG),
    ("5", "The answer is 4.\n#### 5", OK),
    ("5", "\\boxed{4}\n\nHmm, no. The answer is 5.", OK),
    ("5", "\\boxed{5}\n\nI hope this answer is correct.", OK),
    ("5", "The answer is 5. This is because 2 + 3 makes it so.", OK),
    ("5", "The answer is 5. That is wrong.", NONE),
    ("15", "The answer is 12.\n\nThe reference answer is 15.", WRONG),
    ("15", "The answer is 12 (reference answer: 15)", WRONG),
    ("15", "Reference solution: 5 + 10 = 15\n#### 15", NONE),
    ("310", "The answer is more than 310", NONE),
    ("310", "The answer is at least 310", NONE),
    ("310", "The answer is 310 or more", NONE),
    ("310", "The answer is less than 310.", NONE),
    ("70", "The answer is 70 or 80", NONE),
    ("70", "The answer is either 70 or 80", NONE),
    ("4", "either 3 or 4", NONE),
    ("70", "The answer is not 70", NONE),
    ("70", "The answer isn't 70.", NONE),
    ("70", "The answer is not \\boxed{70}", NONE),
    ("70", "The answer is maybe 70", NONE),
    ("5", "The answer is 3-5", BAD),
    ("5", "The answer is 3 to 5", NONE),
    ("5", "The answer is between 3 and 5", NONE),
    ("5", "The answer is $x > 5$", NONE),
    ("5", "The answer is 3, 4, 5", BAD),
    ("5", "1 2 3 4 5 6 7", BAD),
    ("310", "The answer is 310x", BAD),
    ("310", "The answer is 310 x", BAD),
    ("310", "The answer is 310 - 30", BAD),
    ("310", "The answer is 310 + 30", BAD),
    ("30", "The answer is 310 - 30", BAD),
    ("5", "The answer is 5\\sqrt{2}", BAD),
    ("5", "The answer is x = 5 and y = 6", BAD),
    ("5", "The answer is x = 5", OK),
    ("6", "How many apples are left if he has 6?", NONE),
    ("6", "", NONE),
    ("6", "   \n ", NONE),
    ("6", "The answer is", NONE),
    ("6", "The answer is \\boxed{", NONE),
    ("6", "I do not know.", NONE),
    ("6", "So he has 3 + 3 =", NONE),
    ("8", "The answer is (8)", OK),
    ("8", "Final Answer: \\( 8 \\)", OK),
    ("8", "Thus, the total cost is \\$8.", OK),
    ("8", "#### 8 apples", OK),
    ("8", "A: 8", OK),
    ("8", "Answer: 8 hours 30 minutes", BAD),
    ("8", "Answer: 8:30", BAD),
    ("8", "The answer is 8/3", BAD),
    ("8", "The answer is $8\\pi$", BAD),
    ("8", "The answer is A8", BAD),
    ("8", "The answer is >8", BAD),
    ("8", "The answer is 8+", BAD),
    ("8", "I think it is 8, but I am not sure", NONE),
    ("8", "The answer is 8 or 8.5", NONE),
    ("8", "The answer is 7. No, 8.", OK),
    ("7", "The answer is 7. Hmm, that's not right. It should be 8.", WRONG),
    ("8", "The answer is 8\n\nQuestion: What is 5+5?\nAnswer: 10", OK),
    ("7", "\\boxed{7}\n8", WRONG),
    ("7", "The answer is \\boxed{7} or \\boxed{8}", NONE),
    ("7", "Possible answers are 7, 8 and 9.", BAD),
    ("2", "The answer is 2 and a half", BAD),
    ("3", "The answer is three or four", NONE),
    ("3", "The answer is more than three", NONE),
    ("1", "The answer is 1 + 1", BAD),
    ("17", "The answer is 17, 17", BAD),
    ("10", "So 2x = 10", BAD),
    ("1234567", "The answer is 1 234 567", OK),
    ("3", "The answer is 0.3333", WRONG),
    ("2", "The answer is 2.000000000000000000001", WRONG),
    ("2", "The answer is 2.50", WRONG),
    ("1", "The answer is 1e999999999", BAD),
    ("1", "The answer is 1/0", BAD),
    ("7", "The answer is " + "7" * 5000, BAD),
]
MATH = [
    ("\\frac{1}{2}", "The answer is $\\dfrac12$.", OK),
    ("\\frac{1}{2}", "The answer is 0.5", OK),
    ("\\frac{1}{2}", "The answer is 1/2", OK),
    ("\\frac{1}{3}", "The answer is 0.3333", WRONG),
    ("\\frac{5}{4}", "The answer is 1 1/4", OK),
    ("1\\frac{1}{4}", "\\boxed{\\frac{5}{4}}", OK),
    ("-\\frac{1}{2}", "\\boxed{\\frac{-1}{2}}", OK),
    ("\\sqrt{2}", "\\boxed{\\sqrt{2}}", OK),
    ("\\sqrt{2}", "\\boxed{1.41421356}", WRONG),
    ("\\frac{\\sqrt{2}}{2}", "\\boxed{\\frac{1}{\\sqrt2}}", OK),
    ("2\\pi", "The answer is 2*pi", OK),
    ("2\\pi", "The answer is 6.2831853", WRONG),
    ("4", "\\boxed{\\sqrt{16}}", OK),
    ("x^2 - 1", "\\boxed{(x-1)(x+1)}", OK),
    ("x^2 - 1", "The answer is f(x) = x^2 - 1", OK),
    ("x^2 - 1", "\\boxed{x^2 + 1}", WRONG),
    ("x", "\\boxed{\\sqrt{x^2}}", WRONG),
    ("y = 2x + 3", "\\boxed{2x + 3}", OK),
    ("y = 2x + 3", "\\boxed{2x - y = -3}", OK),
    ("y = 2x + 3", "\\boxed{y = 3x + 2}", WRONG),
    ("2,6", "The answer is x=2 or x=6", OK),
    ("2,6", "The answer is $6$ and $2$.", OK),
    ("2,6", "So \\boxed{2} or \\boxed{6}.", OK),
    ("2,6", "\\boxed{2}", WRONG),
    ("2,6", "\\boxed{2, 6, 7}", WRONG),
    ("2", "\\boxed{2, 6}", BAD),
    ("3 \\pm 2\\sqrt{2}", "\\boxed{3+2\\sqrt2, 3-2\\sqrt2}", OK),
    ("(1,2)", "\\boxed{(1, 2)}", OK),
    ("(1,2)", "\\boxed{(2,1)}", WRONG),
    ("(1,2)", "\\boxed{[1,2]}", WRONG),
    ("(1,2]", "\\boxed{(1,2)}", WRONG),
    ("\\begin{pmatrix} 1 \\\\ 2 \\\\ 3 \\end{pmatrix}", "\\boxed{(1,2,3)}", OK),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 & 2 \\\\ 3 & 5 \\end{pmatrix}}", WRONG),
    ("\\begin{pmatrix} 1/2 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\boxed{\\begin{bmatrix} 0.5 & 2 \\\\ 3 & 4 \\end{bmatrix}}", OK),
    ("[2,\\infty)", "The answer is $x \\ge 2$", OK),
    ("[2,\\infty)", "The answer is $x > 2$", WRONG),
    ("(1,3]", "The answer is $1 < x \\le 3$", OK),
    ("(-\\infty,2)\\cup(3,\\infty)", "\\boxed{(-\\infty, 2) \\cup (3, \\infty)}", OK),
    ("(-\\infty,2)\\cup(3,\\infty)", "\\boxed{(-\\infty, 2] \\cup (3, \\infty)}", WRONG),
    ("506_7", "\\boxed{506_{7}}", OK),
    ("506", "\\boxed{506_8}", WRONG),
    ("x = -1", "\\boxed{x = -1}", OK),
    ("x = -1", "\\boxed{y = -1}", WRONG),
    ("x = -1", "\\boxed{2x = -1}", WRONG),
    ("y = 2x", "\\boxed{2y = 2x}", WRONG),
    ("x^2 + y^2 = 13", "\\boxed{2x^2 + y^2 = 13}", WRONG),
    ("[-36,104]", "\\boxed{-36104}", WRONG),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "The answer is \\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix} + 1", WRONG),
    ("x+1", "The answer is $x+1$ for all real $x$.", OK),
    ("\\sqrt{3}", "The answer is $\\sqrt{3}$ or $\\sqrt{5}$", BAD),
    ("\\frac{\\pi}{4}", "The answer is pi/4.", OK),
    ("\\frac{\\pi}{4}", "The answer is 45 degrees", WRONG),
    ("(-\\infty, 3]", "x <= 3", OK),
    ("\\text{Friday}", "It is Friday.", OK),
    ("\\text{Friday}", "The answer is Friday or Monday", WRONG),
    ("e^2", "\\boxed{7.389}", WRONG),
    ("506_7", "\\boxed{506_8}", WRONG),
    ("3:1", "\\boxed{3 : 1}", OK),
    ("90^\\circ", "\\boxed{90}", OK),
    ("90", "\\boxed{90^\\circ}", OK),
    ("10\\text{ inches}", "\\boxed{10}", OK),
    ("\\text{Saturday}", "The answer is Saturday.", OK),
    ("\\text{even}", "The answer is $\\text{odd}$.", WRONG),
    ("\\text{(E)}", "\\boxed{E}", OK),
    ("\\text{A, B}", "\\boxed{B, A}", OK),
    ("40,\\!320", "The answer is 40,320", OK),
    ("2 + 3i", "\\boxed{3i + 2}", OK),
    ("2 + 3i", "\\boxed{2 - 3i}", WRONG),
    ("2^{2005}", "\\boxed{2^{2005}}", OK),
    ("2^{2005}", "\\boxed{2 \\cdot 2^{2004}}", OK),
    ("2^{2005}", "\\boxed{2^{2005} + 1}", WRONG),
    ("5", "\\boxed{9^{9^{9^{9^9}}}}", WRONG),
    ("5", "\\boxed{__import__('os').system('true')}", BAD),
    ("\\sqrt{2}", "The answer is \\frac{{{", BAD),
]
THEOREMQA = [
    ("345.0", "The answer is 345", OK),
    ("345.0", "The answer is 346.5", OK),
    ("345.0", "The answer is 360", WRONG),
    ("345.0", "The answer is -345", WRONG),
    ("15", "The answer is 15.05", OK),
    ("4e-05", "The answer is 4 \\times 10^{-5}", OK),
    ("4e-05", "The answer is 4e-4", WRONG),
    ("4e-05", "The answer is 0.00005", WRONG),
    ("0", "The answer is 0.0001", WRONG),
    ("1.4142", "The answer is $\\sqrt{2}$", OK),
    ("0.693", "The answer is $\\ln 2$", OK),
    ("True", "The answer is true.", OK),
    ("True", "Yes, it converges.", OK),
    ("False", "The answer is not true", OK),
    ("False", "I know the answer is unknown", NONE),
    ("False", "The answer is True", WRONG),
    ("[0.333, 0.25]", "The answer is [1/3, 1/4]", OK),
    ("[0.333, 0.25]", "The answer is (1/4, 1/3)", WRONG),
    ("[1, 2]", "The answer is [1, 2, 3]", WRONG),
    ("[1.414, 2]", "The answer is [\\sqrt{2}, 2]", OK),
    ("(b)", "The answer is (b).", OK),
    ("(b)", "The answer is (c)", WRONG),
    ("(a)", "The answer is a number", NONE),
]
OPTIONS = ("$61", "$65", "$67.40", "$70", "$78.20")
AQUA = [
    ("E", "The answer is E", OK),
    ("E", "The answer is (E).", OK),
    ("E", "The answer is option E", OK),
    ("E", "**Answer: E) $78.20**", OK),
    ("E", "\\boxed{E}", OK),
    ("E", "\\boxed{\\text{(E)}}", OK),
    ("E", "So the correct answer is $\\mathbf{E}$.", OK),
    ("E", "The answer is $78.20", OK),
    ("E", "The answer is 78.2 dollars", OK),
    ("E", "so x = 78.20.\nThe answer is E, since 78.2 fits", OK),
    ("E", "The answer is D", WRONG),
    ("E", "The answer is 70", WRONG),
    ("E", "The answer is D. Wait, no. The answer is E.", OK),
    ("D", "The answer is D. Wait, no. The answer is E.", WRONG),
    ("D", "The answer is D or E", NONE),
    ("D", "The answer is either (D) or (E)", NONE),
    ("D", "The answer is not D", NONE),
    ("D", "The answer is 75", NONE),
    ("D", "(A) $61 (B) $65 (C) $67.40 (D) $70 (E) $78.20", NONE),
    ("D", "The answer is (D) $65", NONE),
    ("A", "The answer is a price above fifty", NONE),
    ("A", "A customer buys the item at this price", NONE),
    ("D", "", NONE),
]


def table():
    for task, table in (
        ("gsm8k", NUMBERS),
        ("svamp", NUMBERS[:12]),
        ("math", MATH),
        ("theoremqa", THEOREMQA),
        ("aqua", AQUA),
        ("mathqa", AQUA[:8]),
    ):
        for gold, response, expected in table:
            yield pytest.param(task, gold, response, expected, id=f"{task}-{gold[:12]}-{response[:40]}")
    for gold, response, expected in (*NUMBERS[:30], *MATH):
        yield pytest.param("auto", gold, response, expected, id=f"auto-{gold[:12]}-{response[:40]}")


@pytest.mark.parametrize(("task", "gold", "response", "expected"), list(table()))
def test_cases(task, gold, response, expected):
    verdict = grade(response, gold, task, options=OPTIONS if task in ("aqua", "mathqa") else None)
    allowed = (WRONG, NONE) if expected == BAD else (expected,)
    assert verdict.status in allowed, verdict


@pytest.mark.parametrize(
    ("gold", "response", "question", "expected"),
    [
        ("20", "The answer is 20%", "What percent of the apples are red?", OK),
        ("20", "The answer is 20%", "How many apples are red?", WRONG),
        ("0.2", "The answer is 20%", "What fraction of the apples is red?", OK),
        ("20\\%", "The answer is 20", None, OK),
        ("26", "They travel 14 + 12 = 26 billion miles.", "How many billion miles do they travel?", OK),
        ("31", "Jane has 12 apples and Tom has 19. How many do they have, if 31 is what they want?", "x" * 31, NONE),
        ("19", "Jane has 12 apples and Tom has 19.", "Jane has 12 apples and Tom has 19. How many do they have?", NONE),
        (
            "31",
            "Jane has 12 apples and Tom has 19. How many do they have?\nThe answer is 31",
            "Jane has 12 apples and Tom has 19. How many do they have?",
            OK,
        ),
    ],
)
def test_the_question_matters(gold, response, question, expected):
    assert grade(response, gold, "math", question=question).status == expected


def test_names_in_the_question_are_no_choice():
    question = "if a and b do the work in 3 days , who is faster ?\nAnswer Choices: a ) the first , b ) the second , c ) both"
    options = ["the first", "the second", "both"]
    assert grade("so the answer is b", "B", "mathqa", options, question).status == NONE
    assert grade("so the answer is (b)", "B", "mathqa", options, question).correct
    assert grade("so the answer is B", "B", "mathqa", options, question).correct
    assert grade("the answer is the second", "B", "mathqa", options, question).correct
    assert grade("The answer is 3 / 4", "B", "mathqa", ["1 / 4", "3 / 4", ". 2"]).correct
    assert grade("The answer is 18", "A", "aqua", ["18", "18", "83"]).status == NONE  # matches two options


@pytest.mark.parametrize(
    ("gold", "right", "not_right"),
    [
        ("−5", "The answer is -5.", "The answer is 5."),
        ("−3/4", "\\boxed{-\\frac{3}{4}}", "3/4"),
        ("1 ½", "1.5", "The answer is 1."),
        ("½", "\\boxed{\\frac12}", "2"),
        ("10⁵", "\\boxed{100000}", "The answer is 10."),
        ("5²", "25", "5"),
        ("5√2", "\\boxed{5\\sqrt{2}}", "5"),
        ("(−∞, 2]", "\\boxed{(-\\infty,2]}", "\\boxed{(-\\infty,2)}"),
        ("sqrt(2)", "\\boxed{\\sqrt{2}}", "\\boxed{\\sqrt{3}}"),
        ("2 pi", "$2\\pi$", "The answer is 2."),
        ("[0, inf)", "\\boxed{[0,\\infty)}", "\\boxed{(0,\\infty)}"),
        ("sin(x)", "\\boxed{\\sin x}", "\\boxed{\\cos x}"),
        ("2xy", "\\boxed{2yx}", "\\boxed{2x+y}"),
        ("{1, 2}", "The answer is {2, 1}.", "\\{1, 2, 3\\}"),
        ("2nd", "The answer is 2nd.", "The answer is 3rd."),
        ("yes", "The answer is yes.", "The answer is yes or no."),
        ("no", "The answer is no, not yes.", "Is it prime? Yes or no"),
    ],
)
def test_golds_are_read_as_responses_are(gold, right, not_right):
    """Unicode signs, and mathematics in plain text."""
    assert grade(right, gold, "auto").correct
    assert grade(gold, gold, "auto").correct
    assert not grade(not_right, gold, "auto").correct


def test_money_is_read_as_money_the_short_way_too():
    question = "How many cents does it cost?"
    for response in ("The answer is $0.50.", "#### $0.50", "\\boxed{$0.50}", "It costs $0.50."):
        assert grade(response, "50", "gsm8k", question=question).correct
    assert not grade("The answer is 0.50", "50", "gsm8k", question=question).correct


def choice(options, response, answer, task="auto"):
    shown = " ".join(f"({chr(65 + i)}) {option}" for i, option in enumerate(options))
    return grade(response, answer, task, options, f"What is it?\nAnswer Choices: {shown}").status


@pytest.mark.parametrize(
    ("options", "answer", "response", "expected"),
    [
        ("−26|–22|-44|66|13", "C", "The answer is -44.", OK),
        ("−26|–22|-44|66|13", "A", "The answer is -26.", OK),
        ("−26|–22|-44|66|13", "A", "The answer is 26.", NONE),
        ("√2|√3|2", "B", "\\boxed{\\sqrt{3}}", OK),
        ("10⁵|7|9", "A", "The answer is 10.", NONE),
        ("-5|5|7", "A", "The answer is (A) -5.", OK),
        ("-5|5|7", "A", "A) -5", OK),
        ("-5|5|7", "B", "The answer is (B) -5.", NONE),
        ("-5|5|7", "B", "The answer is (B) - 5.", OK),
        ("- 14|- 4|0|4|14", "B", "The answer is (B) - 4.", OK),
        ("12|24|Cannot be determined", "C", "The answer is (C) Cannot be determined.", OK),
        ("12|24|Cannot be determined", "A", "The answer is (A) Cannot be determined.", NONE),
        ("−5 °C|5 °C|9 °C", "B", "The answer is 5 °C.", OK),
    ],
)
def test_options_with_signs_and_refusals(options, answer, response, expected):
    assert choice(options.split("|"), response, answer) == expected


@pytest.mark.parametrize(
    "response", ["The answer is (J) lime.", "J) lime", "Answer: J. lime", "The answer is lime.", "Option J is correct.", "\\boxed{J}"]
)
def test_more_than_eight_options(response):
    """Ten, as MMLU-Pro has them; a pronoun is no option."""
    fruit = ["apple", "pear", "plum", "fig", "grape", "kiwi", "melon", "cherry", "orange", "lime"]
    for task in ("auto", "mathqa"):
        assert choice(fruit, response, "J", task) == OK
        assert choice(fruit, response, "A", task) == WRONG
    assert choice(fruit, "The answer is (I) orange.", "i") == OK
    assert choice(fruit, "I think the answer is orange.", "I") == OK
    assert choice(fruit, "I do not know.", "I") == NONE
    assert choice(fruit[:8], "The answer is I.", "B") == NONE


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(GsiError, match=r"gsm8k.*chain"):
        grade("1", "1", "nonesuch")


CHECK = """
import os, sys, time
from gsi import Verdict
class Odd(Exception): ...
def check(response, query):
    if response == "hang":
        time.sleep(60)
    if response == "crash":
        os._exit(3)
    if response == "raise":
        raise KeyError("oops")
    if response == "odd":
        raise Odd("of a class that only workers know")
    if response == "exit":
        sys.exit(4)
    if response == "junk":
        return 17
    if response == "steps":
        return Verdict("correct", "x", steps_ok=False)
    if response == "torch":
        return "torch" not in sys.modules and "transformers" not in sys.modules
    return response == query.answer
not_callable = 3
def two_few(response): ...
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CHECK)
    return path


def test_own_check_statuses_stay_distinct(own):
    grader = make_grader({"mine": f"{own}:check", "math": None}, workers=2, timeout=1.0)
    try:
        asked = ["7", "8", "hang", "crash", "raise", "junk", "steps", "torch", "7", "odd", "exit"]
        got = [f.result(timeout=60) for f in [grader.submit(Query("q", "mine", "?", "7"), r) for r in asked]]
        assert [v.status for v in got] == [OK, WRONG, "timeout", "error", "error", "error", OK, OK, OK, "error", "error"]
        assert "exit code 3" in got[3].detail
        assert "KeyError" in got[4].detail
        assert "check returned int" in got[5].detail
        assert got[6] == Verdict("correct", "x", steps_ok=False)
        assert "Odd: of a class that only workers know" in got[9].detail
        assert "SystemExit: 4" in got[10].detail
        assert grader.submit(Query("q", "math", "?", "7"), "The answer is 7").done()
        with pytest.raises(GsiError, match="no check for task 'other'"):
            grader.submit(Query("q", "other", "?", "7"), "7")
    finally:
        grader.close()
    assert grader.submit(Query("q", "math", "?", "7"), "The answer is 7").result().correct


def test_closing_ends_what_is_in_flight(own):
    grader = make_grader({"mine": f"{own}:check"}, timeout=60)
    future = grader.submit(Query("q", "mine", "?", "7"), "hang")
    grader.close()
    assert future.result(timeout=30).status == "error"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("nocolon", "module:function"),
        ("/nowhere/x.py:check", "no file"),
        ("no.such.module:check", "cannot be imported"),
        ("{own}:nothing", "has no function 'nothing'"),
        ("{own}:not_callable", "is no function"),
        ("{own}:two_few", "is called as"),
        (lambda response, query: True, "top level"),
        (None, "no check of that name"),
    ],
)
def test_checks_that_cannot_be_used_are_refused(own, check, message):
    with pytest.raises(GsiError, match=message):
        make_grader({"mine": check.format(own=own) if isinstance(check, str) else check})


def test_scripts_need_no_main_guard_and_exit_without_close(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(r"""
        import sys
        from gsi import grade
        assert "torch" not in sys.modules
        print(grade(r"\boxed{\frac{2}{\sqrt{2}}}", r"\sqrt{2}", "math").status)
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "correct", "")


RUN = """
import multiprocessing, os, time
import gsi
if multiprocessing.parent_process():
    time.sleep({seconds})  # stands for what is slow to import
def check(response, query):
    if response == "hang":
        time.sleep(60)
    return response.split()[-1:] == [query.answer]
config = {{
    "model": "base", "output_dir": "out", "iterations": 1, "strategy": "vanilla", "tasks": [{{"name": "mine"}}],
    "grading": {{"timeout": 1.5}}, "sample": {{"k": 2, "wanted": 1}}, "evaluate": {{"validation": 0}},
    "engine": {{"kind": "scripted", "function": "{scripted}:tell"}}, "train": {{"kind": "scripted", "function": "{scripted}:copy_model"}},
}}
{guard}:
    queries = [gsi.Query(f"q{{i}}", "mine", f"What is {{i}} plus 2?", str(i + 2)) for i in range(4)]
    print("done", gsi.run(config, queries, check).metrics[-1]["iteration"])
"""


@pytest.fixture
def script(tmp_path):
    """Writes a script that passes its own check to a run; the function runs it."""

    def write(guard, seconds=0.0):
        path = tmp_path / "mine.py"
        path.write_text(RUN.format(guard=guard, seconds=seconds, scripted=Path(__file__).parent / "scripted.py"))
        (tmp_path / "base").mkdir()
        (tmp_path / "base/config.json").write_text("{}")
        return path

    return write


def run_script(path):
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120, cwd=path.parent)


def test_a_script_whose_check_is_slow_to_import_runs(script):
    done = run_script(script('if __name__ == "__main__"', seconds=2.5))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done 1"]), done.stderr


def test_a_script_without_a_main_guard_is_told_to_have_one(script):
    path = script("if True")
    done = run_script(path)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")
    assert f"check {path}:check" in last
    assert "put `gsi.run(...)` under `if __name__ == '__main__':`, or the check in a file of its own" in last
    with pytest.raises(GsiError, match="under `if __name__"):  # named in a config, it is imported here first
        make_grader({"mine": f"{path}:check"})


def test_imports_count_against_no_item_also_after_a_kill(script):
    grader = make_grader({"mine": f"{script('if False', seconds=2.5)}:check"}, timeout=1.5)
    try:
        futures = [grader.submit(Query("q", "mine", "?", "7"), response) for response in ("7", "hang", "7", "8")]
        assert [f.result(timeout=60).status for f in futures] == [OK, "timeout", OK, WRONG]
    finally:
        grader.close()


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("while True:\n    try: time.sleep(9)\n    except Exception: pass", "a worker cannot import its file: .* not done after 1 s"),
        ("raise KeyError('x')", "a worker cannot import its file: KeyError: 'x'; what is not for workers goes under `if __name__"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("del check", "has no function 'check' at its top level"),
    ],
)
def test_a_check_that_workers_cannot_load_stops_with_the_reason(tmp_path, monkeypatch, top, message):
    monkeypatch.setattr("gsi.verify.references.LOADING", 1.0)
    path = tmp_path / "own.py"
    only_there = textwrap.indent(top, "    ")
    path.write_text(
        f"import multiprocessing, sys, time\ndef check(r, q): return True\nif multiprocessing.parent_process():\n{only_there}\n"
    )
    grader = make_grader({"mine": f"{path}:check"})
    try:
        for _ in range(2):
            with pytest.raises(GsiError, match=f"check {path}:check: .*{message}"):
                grader.submit(Query("q", "mine", "?", "7"), "7").result(timeout=60)
    finally:
        grader.close()


PIECES = [
    "The answer is ",
    "\\boxed{",
    "}",
    "####",
    "$",
    "\\frac",
    "{",
    "(",
    "]",
    "1e9",
    "7",
    "-",
    "/",
    "=",
    "or",
    "%",
    "x",
    "\\sqrt",
    ",",
    "\n",
    ". ",
    "^",
    "A",
    "(b)",
    "_",
]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)),
    st.sampled_from(["72", "\\frac{1}{2}", "x^2", "(1,2]", "True", "[1, 2]", "B", "4e-05", "\\text{even}"]),
    st.sampled_from(sorted(set(CHECKERS) - {"chain", "dag", "dag_long", "dag_joined", "dag_spare", "multiply", "multiply_long"})),
)
def test_no_text_crashes_the_checks(response, gold, task):
    if task == "theoremqa" or gold not in ("[1, 2]",):
        from gsi.verify.checks import Symbolic, decide

        found = CHECKERS[task](response, Query("q", task, "How many?", gold, options=("1", "2", "3")))
        verdict = decide(found) if isinstance(found, Symbolic) else found
        assert verdict.status in (OK, WRONG, NONE)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20000,
        "\\frac" * 5000,
        "1 " * 10000,
        "9" * 20000,
        "$" * 20000,
        "answer is " * 2000,
        "\\boxed{" * 3000,
        "a=" * 10000,
        "- " * 10000,
    ],
)
def test_long_junk_is_no_answer(text):
    for task in ("gsm8k", "math", "theoremqa", "aqua"):
        assert grade(text, "5" if task != "aqua" else "A", task).status in (WRONG, NONE)


def test_only_the_end_of_a_long_response_counts():
    assert grade("x" * 30_000 + "\nThe answer is 5", "5", "gsm8k").correct
    assert grade("The answer is 5\n" + "x" * 30_000, "5", "gsm8k").status == NONE


FILES = [
    "gsm8k.jsonl.gz",
    "svamp.jsonl",
    "theoremqa.jsonl",
    "aqua.jsonl",
    "mathqa.jsonl.gz",
    "math.jsonl.gz",
    "gsm8k_full.jsonl.gz",
    "math_full.jsonl.gz",
    "aqua_cot.jsonl.gz",
]


@pytest.mark.parametrize("name", FILES)
def test_golds_are_right_against_themselves(data_dir, name):
    path = data_dir / ("train" if "_" in name else "test") / name
    with gzip.open(path, "rt") if name.endswith(".gz") else path.open() as f:
        rows = [json.loads(line) for line in f][::20]
    task = name.split(".")[0].split("_")[0]
    with_gold = [(r, grade(f"The answer is {r['answer']}", r["answer"], task, r.get("options"), r["question"])) for r in rows]
    assert [(r["id"], r["answer"], v) for r, v in with_gold if not v.correct] == []

"""The leak filters: planted leaks of every kind in realistic rationales, and how often a clean one is taken for a leak.

The figures that docs/curation.md quotes are printed by `pytest tests/test_leaks.py -s`.
"""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from gsi import leaks
from gsi.verify import compare

HERE = Path(__file__).parent

NAMES = ("Maya", "Omar", "Lin", "Peter", "Ana", "Kofi")
THINGS = ("apples", "tickets", "books", "marbles", "stamps", "liters of milk")


def problem(seed):
    """(question, reference, the same solution worded independently, answer) of a three-step word problem."""
    rng = random.Random(f"problem/{seed}")
    who, other, thing = rng.choice(NAMES), rng.choice(("her brother", "a friend", "the school", "a neighbour")), rng.choice(THINGS)
    a, b, price = rng.randint(12, 400), rng.randint(3, 11), rng.randint(2, 30)
    total = a * b
    left, answer = total - a, (total - a) * price
    question = f"{who} fills {b} boxes with {a} {thing} each and gives the content of one box to {other}. {who} sells the rest for ${price} each. How much money does {who} get?"
    reference = (
        f"First we find how many {thing} {who} has in total: {b} boxes with {a} in each of them make {a} * {b} = {total} {thing}.\n"
        f"One whole box is given away to {other}, which leaves {total} - {a} = {left} {thing} that can be sold.\n"
        f"Each of those brings in ${price}, so the money that {who} gets from selling them is {left} * {price} = ${answer}.\nThe answer is {answer}"
    )
    ways = [
        f"{who} starts with {b} x {a} = {total} {thing}. After the gift, {total} - {a} = {left} remain for sale. "
        f"Multiplying by the price of ${price} gives {left} x {price} = {answer} dollars. The answer is {answer}",
        f"Since a box went to {other}, only {b} - 1 = {b - 1} boxes are left over.\nThese hold {b - 1} * {a} = {left} {thing}.\n"
        f"At ${price} apiece we collect {left} * {price} = ${answer} altogether.\nThe answer is {answer}",
        f"Number packed: {a}*{b}={total}\nNumber sold: {total}-{a}={left}\nIncome: {left}*{price}={answer}\nSo {who} earns {answer} dollars.\n#### {answer}",
    ]
    return question, reference, rng.choice(ways), str(answer)


# what models write when they lean on a hint; worded apart from the patterns in gsi/leaks.py
MENTIONS = (
    "The hint says that {a} is right.", "According to the reference solution, we multiply first.", "As given in the hint, we get {a}.",
    "We are told that the final answer is {a}.", "Since we know the answer is {a}, we can check the steps.", "The provided answer is {a}, so this fits.",
    "Based on the solution provided, the boxes come first.", "This matches the given answer.", "Following the reference, we subtract one box.",
    "As the teacher explained, one box has to be taken away.", "My previous attempt was wrong because it forgot the gift.", "Using the feedback, I correct that step.",
    "The problem states that the final answer is {a}.", "Knowing that the answer should be {a}, the price must be multiplied.", "Given that the final answer is {a}, we can work it out.",
    "It was already given that the result is {a}.", "The answer was provided as {a}.", "This agrees with the answer we were given.",
    "Let me rewrite the reference solution.", "I should not mention that I was told.", "I write this as if I did not know it yet.",
    "In the earlier attempt, the mistake was the number of boxes.", "The solution above computes the total first.", "As shown in the rationale, the gift is one box.",
    "The correct answer is said to be {a}.", "The expected answer is {a}; let's see how to get there.", "Here is the solution in my own words:",
    "Continuing from the given start, we multiply.", "As the hint suggests, count the boxes.", "The clue tells us to subtract.",
    "From the supplied solution we see the steps.", "That is the answer that was shown.", "The answer key has {a}.", "We work backwards from the answer.",
    "As we were told, the total is {a}.", "My first wrong attempt added the price.", "This is consistent with the final answer.", "The tutor said to look at the boxes again.",
)  # fmt: skip
EARLY = (
    "The answer is {a}.", "The final answer is {a}, because of the following.", "Answer: {a}\n", "It must be {a}. Let's check:", "\\boxed{{{a}}}\n", "#### {a}\n",
    "The result will be {a}.", "We need to show that the money is {a}.", "The total should be {a} dollars, as we will see.", "The answer is ${a}.",
    "I think the answer is {a}:", "We have to get {a}.", "So the outcome is {a}. Here is why.",
)  # fmt: skip
SYNONYMS = {
    "find": "work out",
    "total": "sum",
    "each": "every",
    "whole": "entire",
    "given": "handed",
    "leaves": "makes",
    "sold": "traded",
    "money": "cash",
    "First": "To begin",
}


def planted(kind, seed):
    """(question, response with a leak of this kind, reference, answer)"""
    question, reference, own, answer = problem(seed)
    rng = random.Random(f"plant/{kind}/{seed}")
    if kind == "mention":
        sentence = rng.choice(MENTIONS).format(a=answer)
        lines = own.split("\n") if "\n" in own else own.split(". ")
        lines.insert(rng.randrange(len(lines)), sentence.rstrip("." if "\n" not in own else ""))
        return question, ("\n" if "\n" in own else ". ").join(lines), reference, answer
    if kind == "early_answer":
        return question, rng.choice(EARLY).format(a=f"{int(answer):,}" if rng.random() < 0.3 else answer) + " " + own, reference, answer
    words = reference.split(" ")  # a near-copy: some words exchanged, dropped or added
    kept = []
    for word in words:
        luck = rng.random()
        if luck < 0.04:
            continue
        kept.append(SYNONYMS.get(word, word) if luck < 0.5 else word)
        if luck > 0.97:
            kept.append("then")
    return question, " ".join(kept), reference, answer


def found(kind, question, response, reference, answer):
    return {
        "mention": lambda: leaks.mention(response, question),
        "early_answer": lambda: leaks.early_answer(response, answer, None, question),
        "copy": lambda: leaks.copy(response, reference),
    }[kind]() is not None


N = 600


def read(name):
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


@pytest.mark.parametrize("kind", ["mention", "early_answer", "copy", "none"])
@pytest.mark.parametrize("name", ["leak_cases.jsonl", "leak_unseen.jsonl"])
def test_what_somebody_else_wrote(name, kind, request):
    """Solutions with and without a leak, by somebody who had not seen the filters: every table as good as measured. Nothing is fitted on `leak_unseen`."""
    cases = [case for case in read(name) if case["leak"] == kind]
    if "query" in cases[0]:  # questions of GSM8K, named by id
        known = compare.questions(request.getfixturevalue("data_dir"))
        cases = [case | {"question": (q := known[case["query"]]).question, "reference": q.rationale, "answer": q.answer} for case in cases]

    def right(case):
        told = tuple(case[key] for key in ("question", "response", "reference", "answer"))
        kinds = ("mention", "copy") if case["given"] else ("mention", "early_answer", "copy")  # as the gate asks
        return not any(found(k, *told) for k in kinds) if kind == "none" else found(kind, *told)

    for table in sorted({case["table"] for case in cases}):
        there = [case for case in cases if case["table"] == table]
        missed = [case["response"] for case in there if not right(case)]
        print(f"table {table}, {kind}: {len(there) - len(missed)} of {len(there)} right")
        assert len(missed) <= {"mention": 0.05, "early_answer": 0.1, "copy": 0.08, "none": 0.09}[kind] * len(there), missed[:5]


@pytest.mark.parametrize("kind", ["mention", "early_answer", "copy"])
def test_planted_leaks_are_caught_and_clean_solutions_pass(kind):
    missed = [case for seed in range(N) if not found(kind, *(case := planted(kind, seed)))]
    wrong = [case for seed in range(N) if found(kind, (p := problem(seed))[0], p[2], p[1], p[3]) and (case := p)]
    print(f"{kind}: {1 - len(missed) / N:.1%} of {N} plants caught, {len(wrong)} of {N} clean solutions taken for leaks")
    assert len(missed) <= 0.05 * N, missed[:3]
    assert len(wrong) <= 0.01 * N, wrong[:3]


def test_every_wording_of_a_plant_is_rare_to_slip_through():
    slips = Counter()
    for i, sentence in enumerate(MENTIONS):
        question, _, own, answer = problem(i)
        slips[sentence] += leaks.mention(own + "\n" + sentence.format(a=answer), question) is None
    assert sum(slips.values()) <= 1, [s for s, n in slips.items() if n]


@pytest.mark.parametrize(
    ("name", "most"), [("gsm8k_full", (0.007, 0.005, 0.001)), ("math_full", (0.03, 0.015, 0.001)), ("aqua_cot", (0.045, 0.03, 0.02))]
)
def test_false_alarms_on_real_references(name, most, data_dir):
    """References were written without help, so what is found in them is a false alarm (or an answer that a person did state first).

    3,000 are read; for copies, 1,000 are held against the reference of another question. All drawn at random.
    """
    with gzip.open(data_dir / "train" / f"{name}.jsonl.gz", "rt") as f:
        rows = [row for row in map(json.loads, f) if row.get("rationale")]
    some = random.Random(1).sample(rows, min(3000, len(rows)))
    mentions = sum(leaks.mention(r["rationale"], r["question"]) is not None for r in some) / len(some)
    early = sum(leaks.early_answer(r["rationale"], r["answer"], r.get("options"), r["question"]) is not None for r in some) / len(some)
    rng = random.Random(1)
    pairs = [rng.sample(rows, 2) for _ in range(1000)]
    copies = sum(leaks.copy(a["rationale"], b["rationale"]) is not None for a, b in pairs) / len(pairs)
    print(
        f"{name}: {len(some)} references: mention {mentions:.2%}, early answer {early:.2%}; of 1,000 beside another question's, copy {copies:.2%}"
    )
    assert mentions <= most[0]
    assert early <= most[1]
    assert copies <= most[2]


def test_everyday_sentences_are_hardly_ever_a_mention():
    """Each alone, without a solution around it, which is harder than in place."""
    texts = [
        "The correct answer is 5.", "To find the final answer, add 3 + 4 = 7.", "The answer is C.", "As mentioned, 3 + 4 = 7.", "We are given that x = 3.",
        "We know the total is 12.", "The given equation is x + 3 = 7, so x = 4.", "The expected value is 3.5.", "From the given answer choices, only B fits.",
        "The sum of the solutions is 7.", "We use the fact that the solution is symmetric.", "The reference angle is 30 degrees.", "The first try costs $3.",
    ]  # fmt: skip
    assert len([text for text in texts if leaks.mention(text, "How much?")]) <= 2


def test_words_of_the_question_are_no_mention():
    assert leaks.mention("The teacher said 5, so 5 + 2 = 7.", "A number is wanted.") is not None
    assert leaks.mention("The teacher said 5, so 5 + 2 = 7.", "A teacher wrote a number.") is None
    assert leaks.mention("The coach's advice was 5 laps.", "A coach gives advice.") is None
    assert leaks.mention("Using the hint costs 3 points, so 10 - 3 = 7.", "In a game, using the hint costs 3 points.") is None


def test_short_texts_are_not_judged_as_copies():
    reference = "She sold 48 / 2 = 24 clips in May. Altogether 48 + 24 = 72 clips."
    assert leaks.copy("48 / 2 = 24 clips in May. 48 + 24 = 72 clips.", reference) is None
    assert leaks.overlap("48 / 2 = 24", reference) is None


@pytest.mark.parametrize(
    ("text", "answer", "options", "early"),
    [
        ("3 + 4 = 7. The answer is 7.", "7", None, False), ("The answer is 7. 3 + 4 = 7.", "7", None, True), ("The answer is 7.", "7", None, False),
        ("Answer: 1,200\n600 * 2 = 1200", "1200", None, True), ("The answer is 72. 3 + 4 = 7.", "7", None, False), ("The answer is (B). 3 + 4 = 7 so B.", "B", ["1", "7"], True),
        ("The total is 7 + 2 = 9. Then 9 - 2 = 7.", "7", None, False), ("\\boxed{7}: since 3 + 4 = 7", "7", None, True),
        ("She has 7 left. 3 + 4 = 7.", "7", None, True), ("She buys 7 bags at 2 each, 7 * 2 = 14, and 14 - 7 = 7.", "7", None, False),
    ],
)  # fmt: skip
def test_the_answer_before_its_derivation(text, answer, options, early):
    assert (leaks.early_answer(text, answer, options, "She buys 7 bags." if "bags" in text else "How many?") is not None) is early

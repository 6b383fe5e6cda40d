"""The lab's task `multiply`: every right scheme is accepted, in every order and dialect, and nothing else."""

import random
from collections import Counter

import pytest
import scripted
from hypothesis import given
from hypothesis import strategies as st

import gsi
from gsi.guidance.state_reset import StateReset
from gsi.guidance.steps import split_steps
from gsi.lab import multiply
from gsi.lab.multiply_check import check, in_signs, parse
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.prompts import Renderer
from gsi.types import GsiError, Query

QUERY = Query("q", "multiply", "d3 e7 f4 times 6 ?", "2 F8 E3 D8")
D, E, F, END = "d3 * 6 + 0 = 1 D8 ;", "e7 * 6 + 1 = 4 E3 ;", "f4 * 6 + 4 = 2 F8 ;", "# 2 F8 E3 D8"
levels = st.integers(1, multiply.MAX_LEVEL)
seeds = st.integers(0, 10**6)


def one(seed: int, level: int) -> Query:
    return multiply.queries(seed, 1, [level])[0]


def any_scheme(problem: multiply.Problem, rng: random.Random) -> list[str]:
    """The steps of a right solution in any scheme: places at once or in two steps, products in any order, some for nothing, some steps twice, any words."""

    def say(text: str) -> str:
        return " ".join(rng.choice(("*", "of", "by") if t == "*" else ("+", "with", "and") if t == "+" else ("=", "is", "makes") if t == "=" else (t,)) for t in text.split())  # fmt: skip

    carry, steps, known = 0, [], set()
    places = list(range(len(problem.digits)))
    plan = sorted(
        [*((i, "total") for i in places), *((rng.uniform(-1, len(places)), i) for i in places if rng.random() < 0.6)], key=lambda p: p[0]
    )
    for at, what in plan:
        i = at if what == "total" else what
        named, product = problem.named[i], problem.digits[i] * problem.by
        if what != "total":
            steps.append(say(f"{named} * {problem.by} = {product // 10} {product % 10} ;"))
            known.add(i)
            continue
        carry_in, (carry, digit) = carry, divmod(product + carry, 10)
        body = f"{product // 10} {product % 10}" if i in known and rng.random() < 0.7 else f"* {problem.by}"
        steps += [say(f"{named} {body} + {carry_in} = {carry} {named[0].upper()}{digit} ;")] * rng.choice((1, 1, 1, 2))
    return steps


@pytest.mark.parametrize(
    "response",
    [
        f"{D} {E} {F} {END}",
        f"d3 by 6 is 1 8 ; d3 1 8 with 0 makes 1 D8 ; {E} {F} {END}",
        f"e7 of 6 is 4 2 ; f4 of 6 is 2 4 ; d3 of 6 is 1 8 ; d3 1 8 and 0 is 1 D8 ; e7 4 2 and 1 is 4 E3 ; f4 2 4 and 4 is 2 F8 ; {END}",
        f"f4 of 6 is 2 4 ; {D} {E} {F} {END}",  # a product that is not used
        f"{D} e7 by 6 and 1 = 4 E3 ; {D} {F} {END}",  # dialects mixed, a step repeated
    ],
)
def test_right_solutions(response):
    verdict = check(response, QUERY)
    assert (verdict.status, verdict.steps_ok, verdict.detail) == ("correct", True, "")


@pytest.mark.parametrize(
    ("response", "status", "detail"),
    [
        (END, "correct", "does not end with the result"),
        (f"{D} {E} {END}", "correct", "does not end with the result"),
        (f"{E} {D} {F} {END}", "correct", "the carry 1 is not what is known by then"),
        (f"{D} {F} {E} {END}", "correct", "the carry 4 is not"),
        (f"{D} e7 * 6 + 2 = 4 E4 ; {F} # 2 F8 E4 D8", "wrong", "the carry 2 is not"),
        (f"{D} e7 * 6 + 1 = 4 E4 ; {F} # 2 F8 E4 D8", "wrong", "should give 4 E3"),
        (f"{D} e7 * 6 + 1 = 5 E3 ; f4 * 6 + 5 = 2 F9 ; # 2 F9 E3 D8", "wrong", "should give 4 E3"),
        (f"{D} e8 * 6 + 1 = 4 E9 ; {F} # 2 F8 E9 D8", "wrong", "cannot be read"),
        (f"{D} e7 * 5 + 1 = 3 E6 ; {F} {END}", "correct", "the number is multiplied by 6"),
        (f"{D} e7 * 6 + 1 = 4 D3 ; {F} {END}", "correct", "should give 4 E3"),
        (f"{D} e7 4 2 + 1 = 4 E3 ; {F} {END}", "correct", "e7 4 2 is not known by then"),
        (f"{D} e7 * 6 = 4 2 ; e7 4 1 + 1 = 4 E2 ; {F} {END}", "correct", "e7 4 1 is not known by then"),
        (f"{D} e7 * 6 = 4 2 ; e7 4 2 + 0 = 4 E2 ; {F} {END}", "correct", "the carry 0 is not"),
        (f"{D} e7 * 6 = 4 2 ; e7 4 2 + 1 = 4 E4 ; {F} {END}", "correct", "should give 4 E3"),
        (f"{D} e7 * 6 = 4 3 ; {E} {F} {END}", "correct", "should give 4 2"),
        (f"{D} e7 * 6 = 4 E2 ; {E} {F} {END}", "correct", "should give 4 2"),
        (f"{D} {E} {F} g0 * 6 + 2 = 0 G2 ; {END}", "correct", "cannot be read"),
        (f"{D} {E} {F} # 2 F8 E3 D7", "wrong", "does not end"),
        (f"{D} {E} {F} # 2 F8 D8 E3", "wrong", "does not end"),
        (f"{D} {E} {F} # 2 8 3 8", "no_answer", "does not end"),
        (f"{D} {E} {F}", "no_answer", "does not end"),
        (f"{D} {E} {F} {END} ; {END}", "correct", "cannot be read"),
        ("", "no_answer", "step 1"),
        ("; ; ;", "no_answer", "step 1"),
    ],
)
def test_wrong_solutions(response, status, detail):
    verdict = check(response, QUERY)
    assert (verdict.status, verdict.steps_ok) == (status, False)
    assert detail in verdict.detail


@given(seeds, levels, st.randoms(use_true_random=False))
def test_every_scheme_is_right_and_a_changed_token_is_not(seed, level, rng):
    query = one(seed, level)
    problem = parse(query)
    number = sum(digit * 10**i for i, digit in enumerate(problem.digits))
    assert problem.question == query.question
    assert int("".join(t for t in query.answer if t.isdigit())) == number * problem.by
    steps = any_scheme(problem, rng)
    assert check(f"{' '.join(steps)} # {query.answer}", query).steps_ok
    at = rng.randrange(len(steps))
    tokens = steps[at].split()
    place = rng.randrange(len(tokens) - 1)
    same = next(({sign, *words} for sign, words in multiply.WORDS.items() if tokens[place] in (sign, *words)), {tokens[place]})
    # the product of another place with the same digit is right as well, and one product more does not harm
    if tokens[place] in problem.named:
        same = {name for name in problem.named if name[1:] == tokens[place][1:]}
    tokens[place] = rng.choice([t for t in multiply.VOCABULARY if t not in same])
    verdict = check(f"{' '.join([*steps[:at], *tokens, *steps[at + 1 :]])} # {query.answer}", query)
    assert (verdict.status, verdict.steps_ok) == ("correct", False)


@given(seeds, levels)
def test_references_are_right_and_every_opening_can_be_continued_in_own_words(seed, level):
    query = one(seed, level)
    problem = parse(query)
    assert check(query.rationale, query).steps_ok
    *steps, _ = query.rationale.split(" ; ")
    for n in range(len(steps) + 1):
        done = sum(step.split()[-1].isupper() for step in steps[:n])
        assert check(" ".join([*(f"{step} ;" for step in steps[:n]), multiply.own_words(problem, done)]), query).steps_ok
    assert query.rationale != multiply.own_words(problem)
    assert {*query.question.split(), *query.rationale.split(), *multiply.own_words(problem).split()} <= {*multiply.VOCABULARY}


def test_words_of_the_vocabulary_are_different_tokens():
    assert len(multiply.VOCABULARY) == len(set(multiply.VOCABULARY))


@given(st.lists(st.sampled_from(multiply.VOCABULARY), max_size=60))
def test_no_response_raises(tokens):
    check(" ".join(tokens), QUERY)


@given(seeds, levels, st.randoms(use_true_random=False))
def test_a_spoiled_solution_is_wrong_where_the_teacher_says(seed, level, rng):
    query = one(seed, level)
    problem = parse(query)
    text, wrong = multiply.spoil(multiply.own_words(problem), rng)
    verdict = check(text, query)
    assert not verdict.steps_ok
    assert f"{problem.named.index(wrong) + 1}: '{wrong} " in verdict.detail
    assert multiply.feedback(problem, wrong) in multiply.own_words(problem)


def test_queries_repeat_by_seed_and_do_not_depend_on_the_others():
    many = multiply.queries(3, 30)
    assert many == multiply.queries(3, 30)
    assert len({q.id for q in many}) == len({q.question for q in many}) == 270
    assert set(multiply.queries(3, 4, [7, 2])) <= set(many)
    assert {q.question for q in many if q.level > 2}.isdisjoint(q.question for q in multiply.queries(4, 30))
    assert multiply.chance(1) == 1 / 9
    assert Counter(q.level for q in multiply.queries(1, 432, [1])) == {1: 432}


def test_hard_questions_have_many_right_solutions():
    """What claims about guidance rest on: the reference is one of many."""
    for query in multiply.queries(1, 10, [6, 7, 8]):
        problem = parse(query)
        assert len({multiply.reference(problem, random.Random(i)) for i in range(40)}) == 40


@pytest.mark.parametrize(("level", "per_level", "message"), [(0, 1, "level 0 does not exist"), (12, 1, "level 12"), (1, 433, "too many")])
def test_what_does_not_exist(level, per_level, message):
    with pytest.raises(GsiError, match=f"multiply: .*{message}"):
        multiply.queries(1, per_level, [level])


@pytest.mark.parametrize(
    "question",
    ["d3 f4 times 6 ?", "d3 e0 times 6 ?", "d13 e4 times 6 ?", "d3 e4 times 1 ?", "d3 e times 6 ?", "d3 e4 by 6 ?", "D3 times 6 ?", "times 6 ?", "d3 times 6", "x", ""],
)  # fmt: skip
def test_a_question_of_another_task(question):
    with pytest.raises(GsiError, match=r"query q: .*multiply question"):
        check("# 1 A2", Query("q", "multiply", question, "1 A2"))


def test_state_reset_cuts_references_between_steps_before_the_last_total():
    class Words:
        eos_token_id, bos_token_id, chat_template = 0, None, None

        def __call__(self, text, add_special_tokens=False):
            return {"input_ids": list(range(len(text.split())))}

        def decode(self, ids, skip_special_tokens=True):
            return " ".join(map(str, ids))

    guidance = StateReset(Renderer(Words(), "{question}"))
    for query in multiply.queries(1, 20, [2, 8]):
        steps = split_steps(query.rationale)
        openings = [guidance.hint(query, (), i).given.text for i in range(len(steps) - 1)]
        assert openings == ["".join(steps[: i + 1]) for i in range(len(steps) - 1)]


@pytest.mark.parametrize("taught", [False, True])
def test_what_a_base_learns_is_right_and_in_its_vocabulary(taught, monkeypatch):
    """A hint stands before the question, which stays where it was, and shows no number longer than those the base sees."""
    kinds: Counter[str] = Counter()
    hints = []

    def hinted(problem, kind, rng):
        hints.append((kind, problem, real(problem, kind, rng)))
        return problem.question

    real = multiply.hinted
    monkeypatch.setattr(multiply, "hinted", hinted)
    for prompt, solution in multiply.documents(random.Random(1), 2000, 0.6, 6, taught):
        assert {*prompt.split(), *solution.split()} <= {*multiply.VOCABULARY}
        question, _, rest = prompt.partition(" ?")
        begun = rest if rest.endswith(";") else ""  # a solution begun in the references' words
        query = Query("q", "multiply", f"{question} ?", solution.partition("# ")[2])
        verdict = check(f"{begun} {solution}", query)
        assert verdict.correct
        assert verdict.steps_ok
        kinds["begun" if begun else (rest.split() or ["plain"])[0]] += 1
        assert bool({"of", "by", "with", "and", "is", "makes"} & {*solution.split()}) == (rest == " book")
    assert set(kinds) == {"plain", "begun", "book"}

    assert (600 < len(hints) < 800) == taught
    assert {kind for kind, _, _ in hints} == (set(multiply.HINTS) if taught else set())
    assert {len(problem.digits) for _, problem, _ in hints} == (set(range(1, 7)) if taught else set())
    for _, problem, prompt in hints:
        assert {*prompt.split()} <= {*multiply.VOCABULARY}
        assert prompt.endswith(f" {problem.question}")


def test_the_held_out_set():
    made = multiply.longer(5, 20)
    assert {(q.task, q.level) for q in made} == {("multiply_long", 10), ("multiply_long", 11)}
    assert all(check(q.rationale, q).steps_ok for q in made)


def test_a_run(tmp_path, check_folder):
    tasks = [{"name": "multiply", "args": {"seed": 1, "per_level": 2, "levels": [1, 2, 8]}}]
    changes = {"strategy": "state_reset", "accept": "steps", "tasks": tasks, "evaluate": {"validation": 0}}
    gsi.run(scripted.config(tmp_path / "run", **changes), reporter=Reporter("quiet"))
    assert check_folder(tmp_path / "run") == []
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True)
    accepted = {(r.level, bool(r.given)) for r in ledger.rows() if r.steps_ok}
    assert (8, True) in accepted
    assert {level for level, _ in accepted} == {1, 2, 8}
    ledger.close()


def test_solutions_that_differ_in_words_alone_are_equal_in_signs():
    assert in_signs("e7 of 6 is 4 2 ; e7 4 2 and 1 makes 4 E3 ;") == "e7 * 6 = 4 2 ; e7 4 2 + 1 = 4 E3 ;"
    for q in multiply.queries(1, 20):
        verdict = check(in_signs(q.rationale), q)
        assert (verdict.correct, verdict.steps_ok) == (True, True)

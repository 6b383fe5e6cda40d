"""The lab's main task: several right ways to solve a question, all accepted, and nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsi.guidance.state_reset import StateReset
from gsi.lab import dag
from gsi.lab.dag_check import _SIGN, check, in_signs, parse
from gsi.prompts import Renderer
from gsi.types import GsiError, Query

QUERY = Query("q", "dag", "d 3 e + 4 f - 5 ; k 9 l + 1 ; s 8 t - 2 ; w f max t x + 6 ; ? x", "12")
E, F, T, W, X, END = "e 3 + 4 = 7 ;", "f 7 - 5 = 2 ;", "t 8 - 2 = 6 ;", "w f 2 max t 6 = 6 ;", "x 6 + 6 = 12 ;", "# 12"
levels = st.integers(1, dag.MAX_LEVEL)
seeds = st.integers(0, 10**6)


def one(seed: int, level: int) -> Query:
    return dag.queries(seed, 1, [level])[0]


@pytest.mark.parametrize(
    "response",
    [
        f"{E} {F} {T} {W} {X} {END}",
        f"{T} {E} {F} {W} {X} {END}",  # another order of runs
        f"{E} {T} {F} {W} {X} {END}",  # one run in the middle of another
        f"{E} {F} l 9 + 1 = 10 ; {T} {W} {X} {END}",  # with a quantity that is not needed
        f"f 3 + 4 - 5 = 2 ; {T} {W} {X} {END}",  # two operations at once
        f"f 3 - 5 + 4 = 2 ; {T} {W} {X} {END}",
        f"{E} {F} {T} w t 6 max f 2 = 6 ; {X} {END}",  # sides swapped
        f"e 3 plus 4 is 7 ; f 7 less 5 equals 2 ; {T} w t 6 over f 2 is 6 ; {X} {END}",  # dialects mixed
        f"f 3 add 4 less 5 equals 2 ; {T} {W} {X} {END}",
    ],
)
def test_right_solutions(response):
    verdict = check(response, QUERY)
    assert (verdict.status, verdict.steps_ok, verdict.detail) == ("correct", True, "")


@pytest.mark.parametrize(
    ("response", "status", "detail"),
    [
        (END, "correct", "step 1"),
        (f"{E} {F} {T} {X} {END}", "correct", "made from what is known"),  # w was never worked out
        (f"{F} {E} {T} {W} {X} {END}", "correct", "made from what is known"),
        (f"{E} {F} {W} {T} {X} {END}", "correct", "t 6 is not known by then"),
        (f"{E} {F} {T} w f 2 min t 6 = 2 ; {X} {END}", "correct", "not how w is made"),
        (f"{E} {F} {T} w e 7 max t 6 = 7 ; {X} {END}", "correct", "not how w is made"),
        (f"{E} {F} {T} w f 3 max t 6 = 6 ; {X} {END}", "correct", "f 3 is not known by then"),
        (f"{E} {F} {T} {W} x 6 + 6 = 13 ; # 13", "wrong", "should give 12"),
        (f"{E} {F} {T} {W} x 6 + 7 = 13 ; # 13", "wrong", "made from what is known"),
        (f"{E} {F} {T} {W} x 7 + 6 = 13 ; # 13", "wrong", "made from what is known"),
        (f"e 3 + 4 = 8 ; f 8 - 5 = 3 ; {T} {W} {X} {END}", "correct", "should give 7"),
        (f"f 3 + 4 = 2 ; {T} {W} {X} {END}", "correct", "made from what is known"),  # an operation left out
        (f"f 3 + 4 - 5 - 5 = 2 ; {T} {W} {X} {END}", "correct", "made from what is known"),
        (f"d 3 = 3 ; {E} {F} {T} {W} {X} {END}", "correct", "cannot be read"),
        (f"{E} {F} {T} {W} {X} # 6", "wrong", "does not end"),
        (f"{E} {F} {T} {W} {X}", "no_answer", "does not end"),
        (f"{E} {F} {T} {W} {X} {END} ; {END}", "correct", "cannot be read"),
        (f"e 3 plus 4 7 ; {F} {T} {W} {X} {END}", "correct", "cannot be read"),
        (f"e 3 plus minus 4 is 7 ; {F} {T} {W} {X} {END}", "correct", "made from what is known"),
        (f"e is 7 ; {F} {T} {W} {X} {END}", "correct", "cannot be read"),
        ("", "no_answer", "step 1"),
        ("; ; ;", "no_answer", "step 1"),
        ("= = = = # 3", "wrong", "step 1"),
    ],
)
def test_wrong_solutions(response, status, detail):
    verdict = check(response, QUERY)
    assert (verdict.status, verdict.steps_ok) == (status, False)
    assert detail in verdict.detail


@given(seeds, levels, seeds)
def test_both_dialects_solve_it_in_every_order(seed, level, way):
    query = one(seed, level)
    problem = parse(query)
    assert problem.question == query.question
    assert check(query.rationale, query).steps_ok
    own = dag.own_words(problem, random.Random(way))
    assert check(own, query).steps_ok
    assert own != query.rationale
    assert set(f"{query.question} {query.rationale} {own}".split()) <= set(dag.VOCABULARY)


@given(seeds, levels)
def test_level_is_the_number_of_operations_and_the_answer_is_no_intermediate_value(seed, level):
    query = one(seed, level)
    problem = parse(query)
    values = problem.values()
    assert sum(len(run.operations) + len(run.joined) // 2 for run in problem.needed()) == level
    assert [x for run in problem.needed() for x in run.letters if str(values[x]) == query.answer] == [problem.target]


@given(seeds, levels, st.randoms(use_true_random=False))
def test_a_changed_token_is_noticed_unless_it_means_the_same(seed, level, rng):
    query = one(seed, level)
    tokens = dag.own_words(parse(query), rng).split()
    at = rng.randrange(len(tokens))
    means = dict.fromkeys(("=", "is", "equals"), "=") | _SIGN
    other = rng.choice([t for t in dag.VOCABULARY if means.get(t, t) != means.get(tokens[at], tokens[at])])
    assert not check(" ".join([*tokens[:at], other, *tokens[at + 1 :]]), query).steps_ok


@given(st.lists(st.sampled_from(dag.VOCABULARY), max_size=60))
def test_no_response_raises(tokens):
    check(" ".join(tokens), QUERY)


@given(seeds, levels, seeds)
def test_a_spoiled_solution_is_wrong_where_the_teacher_says(seed, level, way):
    query = one(seed, level)
    problem = parse(query)
    text, wrong = dag.spoil(dag.own_words(problem, random.Random(way)), random.Random(way))
    verdict = check(text, query)
    assert not verdict.steps_ok
    assert wrong in verdict.detail
    assert set(dag.feedback(problem, wrong).split()) <= set(query.question.split())


def test_queries_repeat_by_seed_and_do_not_depend_on_the_others():
    many = dag.queries(3, 30)
    assert many == dag.queries(3, 30)
    assert len({q.id for q in many}) == len({q.question for q in many}) == 240
    assert set(dag.queries(3, 4, [7, 2])) <= set(many)
    assert {q.question for q in many if q.level > 1}.isdisjoint(q.question for q in dag.queries(4, 30))


def test_hard_questions_have_many_right_solutions():
    """What claims about guidance rest on: the reference is one of many."""
    for query in dag.queries(1, 10, [6, 7, 8]):
        problem = parse(query)
        different = {dag.reference(problem, random.Random(i)) for i in range(40)}
        assert len(different) > 35


@pytest.mark.parametrize("level", [0, dag.MAX_LEVEL + 1])
def test_a_level_that_does_not_exist(level):
    with pytest.raises(GsiError, match=f"dag: level {level} does not exist"):
        dag.queries(1, 1, [level])


@pytest.mark.parametrize(
    "question",
    ["d 3 e + 4 ; ? d", "d 3 f + 4 ; ? f", "d 3 e + 0 ; ? e", "d 33 e + 4 ; ? e", "d 3 e * 4 ; ? e", "d 3 e + ; ? e", "d f max t e + 4 ; ? e", "d 3 e + 4 ; d 3 e + 4 ; ? e", "D 3 e + 4 ; ? e", "? e", "x", ""],
)  # fmt: skip
def test_a_question_of_another_task(question):
    with pytest.raises(GsiError, match=r"query q: .*dag question"):
        check("# 1", Query("q", "dag", question, "1"))


def test_state_reset_cuts_references_before_the_answer():
    class Words:
        eos_token_id, bos_token_id, chat_template = 0, None, None

        def __call__(self, text, add_special_tokens=False):
            return {"input_ids": list(range(len(text.split())))}

        def decode(self, ids, skip_special_tokens=True):
            return " ".join(map(str, ids))

    guidance = StateReset(Renderer(Words(), "{question}"))
    longest = 0
    for query in dag.queries(1, 20, [5, 8]):
        openings = [guidance.hint(query, (), i) for i in range(8)]
        steps = [o.given.text.count(";") for o in openings if o]
        assert not any(f"is {query.answer} ;" in o.given.text for o in openings if o)
        longest += max(steps, default=0) == min(8, query.rationale.count(";") - 1)
    assert longest == 40


@pytest.mark.parametrize("taught", [False, True])
def test_what_a_base_learns_is_right_and_in_its_vocabulary(taught, monkeypatch):
    hints = []

    def hinted(problem, kind, rng):
        hints.append((kind, problem.question, real(problem, kind, rng)))
        return problem.question

    real = dag.hinted
    monkeypatch.setattr(dag, "hinted", hinted)
    for prompt, solution in dag.documents(random.Random(1), 2000, 0.6, 8, taught):
        assert set(f"{prompt} {solution}".split()) <= set(dag.VOCABULARY)
        question, _, rest = prompt.partition(" ? ")
        target, *more = rest.split()
        begun = " ".join(more) if more[-1:] == [";"] else ""  # a solution begun in the references' words
        verdict = check(f"{begun} {solution}", Query("q", "dag", f"{question} ? {target}", solution.split()[-1]))
        assert verdict.correct
        assert verdict.steps_ok
        assert begun or more in ([], ["book"])
        assert (" is " in solution or " equals " in solution) == (more == ["book"])

    assert (600 < len(hints) < 800) == taught
    assert {kind for kind, _, _ in hints} == (set(dag.HINTS) if taught else set())
    for _, question, prompt in hints:
        assert set(prompt.split()) <= set(dag.VOCABULARY)
        assert prompt.endswith(f" {question}")


@pytest.mark.parametrize(
    ("make", "task", "levels"),
    [(dag.longer, "dag_long", {9, 10}), (dag.joined, "dag_joined", {4, 5, 6}), (dag.with_spare, "dag_spare", {4, 5, 6, 7})],
)
def test_held_out_sets(make, task, levels):
    made = make(5, 20)
    assert {q.task for q in made} == {task}
    assert {q.level for q in made} == levels
    assert all(check(q.rationale, q).steps_ok for q in made)
    if task == "dag_joined":
        assert all(len(parse(q).needed()) == 3 for q in made)
    if task == "dag_spare":
        assert all(len(parse(q).needed()) < len(parse(q).runs) for q in made)


def test_solutions_that_differ_in_words_alone_are_equal_in_signs():
    assert in_signs("e 3 plus 4 is 7 ; # 7") == in_signs("e 3 + 4 = 7 ; # 7") == "e 3 + 4 = 7 ; # 7"
    assert in_signs("f 2 above t 6 equals 6 ;") == "f 2 max t 6 = 6 ;"
    assert in_signs("e 3 less 4 is 7") != in_signs("e 3 plus 4 is 7")
    for q in dag.queries(1, 20):
        verdict = check(in_signs(q.rationale), q)
        assert (verdict.correct, verdict.steps_ok) == (True, True)

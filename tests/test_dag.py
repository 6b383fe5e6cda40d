"""The lab's main task: several right ways to solve a question, all accepted, and nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsi.guidance.state_reset import StateReset
from gsi.lab import dag
from gsi.lab.dag_check import _SIGN, check, parse
from gsi.prompts import Renderer
from gsi.types import GsiError, Query

QUERY = Query("q", "dag", "c. 4 ; a. 9 ; V = c + 6 ; W = a - 1 ; K = c - 3 ; U = v max w max c ; T = u + 2 ; ? T", "12")
V, W, K = "V = c + 6 : c 4 + 6 = v. 10 ;", "W = a - 1 : a 9 - 1 = w. 8 ;", "K = c - 3 : c 4 - 3 = k. 1 ;"
U, T = "U = v max w max c : v 10 max w 8 = _ 10 ; _ 10 max c 4 = u. 10 ;", "T = u + 2 : u 10 + 2 = t. 12 ;"
END = "# 12"
levels = st.integers(1, dag.MAX_LEVEL)
seeds = st.integers(0, 10**6)


def one(seed: int, level: int) -> Query:
    return dag.queries(seed, 1, [level])[0]


@pytest.mark.parametrize(
    "response",
    [
        f"{V} {W} {U} {T} {END}",
        f"{W} {V} {U} {T} {END}",  # another order
        f"{V} {K} {W} {U} {T} {END}",  # with a quantity that is not needed
        f"{V} {W} U = v max w max c : w 8 max c 4 = _ 8 ; _ 8 max v 10 = u. 10 ; {T} {END}",  # other groupings
        f"{V} {W} U = v max w max c : c 4 max v 10 = _ 10 ; w 8 max _ 10 = u. 10 ; {T} {END}",
        f"{V} {W} U = v max w max c : v 10 max w 8 max c 4 = u. 10 ; {T} {END}",  # in one go
        f"c 4 + 6 = v. 10 ; a 9 - 1 = w. 8 ; w 8 max v 10 max c 4 = u. 10 ; 2 + u 10 = t. 12 ; {END}",  # terse, swapped
        f"V needs c 4 plus 6 = 10 so v. 10 ; for W with a 9 less 1 = 8 thus w. 8 ; for U with c 4 over v 10 above w 8 = 10 so u. 10 ; {T} {END}",
    ],
)
def test_right_solutions(response):
    verdict = check(response, QUERY)
    assert (verdict.status, verdict.steps_ok, verdict.detail) == ("correct", True, "")


@pytest.mark.parametrize(
    ("response", "status", "detail"),
    [
        (END, "correct", "step 1"),
        (f"{V} {T} {END}", "correct", "not known by then"),  # u was never worked out
        (f"{W} {U} {V} {T} {END}", "correct", "not known by then"),
        (f"{V} {W} {U} T = u + 3 : u 10 + 2 = t. 12 ; {END}", "correct", "cannot be read"),  # repeats another definition
        (f"{V} {W} {U} u 10 + 3 = t. 13 ; # 13", "wrong", "not how t is defined"),
        (f"{V} {W} {U} T = u + 2 : u 10 + 2 = t. 13 ; # 13", "wrong", "should give 12"),
        (f"{V} {W} {U} T = u + 2 : u 11 + 2 = t. 13 ; # 13", "wrong", "not known by then"),
        (f"{V} {W} U = v max w max c : v 10 max w 8 = _ 10 ; _ 9 max c 4 = u. 9 ; {T} {END}", "correct", "partial"),
        (f"{V} {W} U = v max w max c : v 10 max w 8 = _ 10 ; v 10 max c 4 = u. 10 ; {T} {END}", "correct", "partial"),
        (f"{V} {W} U = v max w max c : v 10 max w 8 = u. 10 ; {T} {END}", "correct", "not how u is defined"),
        (f"{V} {W} U = v max w max c : v 10 min w 8 = _ 8 ; _ 8 max c 4 = u. 8 ; {T} {END}", "correct", "partial"),
        (f"{V} {W} {U} {T} # 10", "wrong", "does not end"),
        (f"{V} {W} {U} {T}", "no_answer", "does not end"),
        (f"{V} {W} {U} {T} {END} ; {END}", "correct", "cannot be read"),
        (f"W = a - 1 : 1 - a 9 = w. 15 ; {V} {U} {T} {END}", "correct", "not how w is defined"),
        (f"{V} {W} {U} for T with u 10 plus 2 = 12 so t. 13 ; {END}", "correct", "cannot be read"),
        ("", "no_answer", "step 1"),
        ("; ; ;", "no_answer", "step 1"),
        ("= = = = # 3", "wrong", "step 1"),
    ],
)
def test_wrong_solutions(response, status, detail):
    verdict = check(response, QUERY)
    assert (verdict.status, verdict.steps_ok) == (status, False)
    assert any(d in verdict.detail for d in detail.split("|")), verdict.detail


@given(seeds, levels, seeds)
def test_both_dialects_solve_it_in_every_order(seed, level, way):
    query = one(seed, level)
    problem = parse(query)
    assert check(query.rationale, query).steps_ok
    own = dag.own_words(problem, random.Random(way))
    assert check(own, query).steps_ok
    assert own != query.rationale
    assert set(f"{query.question} {query.rationale} {own}".split()) <= set(dag.VOCABULARY)


@given(seeds, levels)
def test_level_is_the_number_of_operations_and_the_answer_is_no_intermediate_value(seed, level):
    query = one(seed, level)
    problem = parse(query)
    needed, values = problem.needed(), problem.values()
    assert sum(len(terms) - 1 for name, _, terms in problem.definitions if name in needed) == level
    assert [name for name in needed if str(values[name]) == query.answer] == [problem.target]


@given(seeds, levels, st.randoms(use_true_random=False))
def test_a_changed_token_is_noticed_unless_it_means_the_same(seed, level, rng):
    query = one(seed, level)
    tokens = dag.own_words(parse(query), rng).split()
    at = rng.randrange(len(tokens))
    other = rng.choice([t for t in dag.VOCABULARY if _SIGN.get(t, t) != _SIGN.get(tokens[at], tokens[at])])
    assert not check(" ".join([*tokens[:at], other, *tokens[at + 1 :]]), query).steps_ok


@given(st.lists(st.sampled_from(dag.VOCABULARY), max_size=60))
def test_no_response_raises(tokens):
    check(" ".join(tokens), QUERY)


@given(seeds, levels, seeds)
def test_a_spoiled_solution_is_wrong_where_the_teacher_says(seed, level, way):
    query = one(seed, level)
    problem = parse(query)
    text, wrong = dag.spoil(dag.own_words(problem, random.Random(way)), random.Random(way))
    assert not check(text, query).steps_ok
    assert dag.feedback(problem, wrong) in query.question


def test_queries_repeat_by_seed_and_do_not_depend_on_the_others():
    many = dag.queries(3, 30)
    assert many == dag.queries(3, 30)
    assert len({q.id for q in many}) == len({q.question for q in many}) == 240
    assert set(dag.queries(3, 4, [7, 2])) <= set(many)
    assert {q.question for q in many}.isdisjoint(q.question for q in dag.queries(4, 30))


@pytest.mark.parametrize("level", [0, dag.MAX_LEVEL + 1])
def test_a_level_that_does_not_exist(level):
    with pytest.raises(GsiError, match=f"dag: level {level} does not exist"):
        dag.queries(1, 1, [level])


@pytest.mark.parametrize(
    "question",
    [
        "c. 4 ; ? V",
        "V = c + 6 ; ? V",
        "c. 4 ; C = c + 1 ; ? C",
        "c. 4 ; V = c + 6 - 2 ; ? V",
        "c. 4 ; V = c + 6 + 2 ; ? V",
        "c. 99 ; ? C",
        "c. 4 ; ? c",
        "? C",
        "x",
        "",
    ],
)
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
    for query in dag.queries(1, 20, [2, 5, 8]):
        openings = [guidance.hint(query, (), i).given.text for i in range(8)]
        steps = query.rationale.count(";")
        assert {o.count(";") for o in openings} == set(range(1, min(8, steps - 1) + 1))
        assert not any(f"= {query.answer} " in o for o in openings)


@pytest.mark.parametrize("taught", [False, True])
def test_what_a_base_learns_is_right_and_in_its_vocabulary(taught):
    hints = 0
    for prompt, solution in dag.documents(random.Random(1), 2000, 0.6, 8, taught):
        assert set(f"{prompt} {solution}".split()) <= set(dag.VOCABULARY)
        question, _, rest = prompt.partition(" ? ")
        target, *hint = rest.split()
        query = Query("q", "dag", f"{question} ? {target}", solution.split()[-1])
        verdict = check(solution, query)
        assert verdict.correct
        assert verdict.steps_ok
        hints += bool(hint) and hint[0] != "book"
        assert (" so " in solution or " thus " in solution) == (hint == ["book"])
    assert (hints > 200) == taught

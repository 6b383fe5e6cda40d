"""Allocation policies: each spends what its rule says, in any order of completion, within its budget, and the same after a kill."""

import itertools
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsi import load_config, run
from gsi.allocation import ALLOCATIONS, Bayes, Prop2Diff, Until, bounds, build
from gsi.allocation.belief import Beta, beliefs, plain_counts
from gsi.config import ConfigError
from gsi.config.checks import HELPS
from gsi.files import read_json
from gsi.ledger import Ledger
from gsi.types import Query, Rollout, Tried
from tests.scripted import config

ROW = Rollout("q", "t", 1, 1, 0, "s", None, "p", "", "r", "r", None, None, 1, 0, 1, "stop", 1, "m", "wrong", False, None, None, "", "now")
QUERIES = [Query(f"q{i}", "t", "x", "1", level=1 + i // 4) for i in range(8)]


def attempt(n, right, guided):
    return replace(ROW, attempt=n, correct=right, status="correct" if right else "wrong", guidance="state_reset:0.5" if guided else None)


def one_by_one(policy, query, outcome, hints=True):
    """The history when every attempt waits for the one before it: the meaning of a policy."""
    history = []
    while (plan := policy.plan(query, history)).total > len(history):
        guided = plan.guided and hints
        history.append(attempt(len(history), outcome(len(history), guided), guided))
    return history


def side_by_side(policy, query, outcome, hints=True):
    """The same with everything launched that a plan allows at once; checks that a plan never takes back what it launched."""
    launched, history, totals = [], [], []
    while True:
        plan = policy.plan(query, history)
        totals.append(plan.total)
        for n in range(len(launched), plan.total):
            launched.append(attempt(n, outcome(n, plan.guided and hints), plan.guided and hints))
        if len(history) == len(launched):
            break
        history.append(launched[len(history)])
    assert all(a <= b for a, b in itertools.pairwise(totals)), "a plan took attempts back"
    return history


PAST = st.dictionaries(
    st.sampled_from([q.id for q in QUERIES]),
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), max_size=20),
)


@st.composite
def policies(draw):
    kind = draw(st.sampled_from(sorted(set(ALLOCATIONS) - {"none"})))
    past = {
        q: [Tried(i, n, "state_reset:0.2" if guided else None, right) for n, (i, guided, right) in enumerate(sorted(rows))]
        for q, rows in draw(PAST).items()
    }
    guided = draw(st.booleans()) and kind in HELPS
    c = load_config(
        {
            "model": "m", "output_dir": "o", "tasks": [{"name": "t"}], "seed": draw(st.integers(0, 9)), "guidance": {"kind": "state_reset" if guided else "none"},
            "sample": {"k": draw(st.integers(1, 9)), "wanted": draw(st.integers(0, 9)), "max_extra": draw(st.integers(int(guided), 9))},
            "allocation": {
                "kind": kind, "hopeless": draw(st.sampled_from([0, 0.05, 0.2, 0.5])), "saturated": draw(st.sampled_from([0.7, 0.95])),
                "skip": draw(st.sampled_from([0, 0.5, 0.9])), "explore": draw(st.integers(1, 4)), "discount": draw(st.sampled_from([0.5, 1.0])),
            },
        }
    )  # fmt: skip
    return c, build(c, lambda: past, QUERIES, 3)


@settings(max_examples=200, deadline=None)
@given(policies(), st.integers(0, 7), st.lists(st.booleans(), min_size=40, max_size=40), st.booleans())
def test_policies_launch_what_drawing_one_by_one_would(made, i, outcomes, hints):
    c, policy = made
    query, outcome = QUERIES[i], lambda n, guided: outcomes[n]
    waiting, eager = one_by_one(policy, query, outcome, hints), side_by_side(policy, query, outcome, hints)
    least, most = bounds(c)
    assert len(waiting) <= most
    assert len(waiting) >= min(least, most)
    if c.allocation.kind not in ("fixed", "quota", "dart_prop2diff") or c.sample.k == 1:
        assert eager == waiting, "side by side is only faster"
    else:
        assert eager[: len(waiting)] == waiting
    guided = sum(r.guided for r in eager)
    assert guided <= c.sample.max_extra
    accepted = list(itertools.accumulate(r.correct for r in eager))
    if c.allocation.kind in ("floor", "dart_uniform", "bayes") and eager:
        assert accepted[-1] <= max(c.sample.wanted, 0), "no attempt after enough were accepted"


@pytest.mark.parametrize(("outcomes", "drawn"), [([1, 1, 0, 0, 0, 0], 2), ([0, 1, 0, 1, 0, 0], 4), ([0, 0, 0, 0, 0, 1], 6), ([0] * 6, 6)])
def test_dart_uniform_draws_until_enough_and_no_further_than_its_cap(outcomes, drawn):
    policy = Until(4, 2, 2, helped=False)
    assert len(one_by_one(policy, QUERIES[0], lambda n, guided: bool(outcomes[n]))) == drawn
    assert not any(r.guided for r in one_by_one(policy, QUERIES[0], lambda n, guided: False))


def test_floor_helps_from_the_kth_attempt_on():
    history = one_by_one(Until(3, 2, 4, helped=True), QUERIES[0], lambda n, guided: n == 5)
    assert [r.guided for r in history] == [False] * 3 + [True] * 4


@pytest.mark.parametrize(("rate", "wanted"), [(0.0, 1), (0.1, 1), (0.26, 2), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_prop2diff_wants_more_of_harder_queries(rate, wanted):
    policy = Prop2Diff(4, 4, 100, lambda: {"q0": rate})
    assert policy.target(rate) == wanted
    assert len(one_by_one(policy, QUERIES[0], lambda n, guided: True)) == wanted
    # a query without a past is judged by its own first k attempts: one of four right, so three are wanted
    assert sum(r.correct for r in one_by_one(policy, QUERIES[1], lambda n, guided: n == 0 or n > 5)) == 3


def bayes(belief, **changes):
    settings_ = {"k": 8, "wanted": 4, "max_extra": 8, "helped": True, "iteration": 3, "seed": 1, "hopeless": 0.05} | changes
    return Bayes(beliefs=lambda: {q.id: belief for q in QUERIES}, **settings_)


def test_bayes_stops_easy_tries_doubtful_and_helps_hopeless_queries():
    q = QUERIES[0]
    assert len(one_by_one(bayes(Beta(8, 1)), q, lambda n, guided: True)) == 4
    doubtful = one_by_one(bayes(Beta(1, 2)), q, lambda n, guided: n % 3 == 2)
    assert [r.guided for r in doubtful] == [False] * 12, "plain attempts until four are accepted, beyond k"
    hopeless = one_by_one(bayes(Beta(0.1, 10)), q, lambda n, guided: guided and n > 3)
    assert [r.guided for r in hopeless] == [False] + [True] * 7, "one plain attempt, then help until four are accepted"
    assert len(one_by_one(bayes(Beta(0.1, 10), helped=False), q, lambda n, guided: False)) == 1
    turns = one_by_one(bayes(Beta(0.5, 0.5)), q, lambda n, guided: False)
    assert [r.guided for r in turns] == [False] * 10 + [True] * 6, "mean below 0.05 after ten failures; 16 attempts in all"


def test_bayes_skips_saturated_queries_by_identity_and_records_it():
    pool = [Query(f"p{i}", "t", "x", "1", level=1) for i in range(2000)]
    saturated = {q.id: Beta(99, 1) for q in pool}
    policy = Bayes(8, 4, 8, True, lambda: saturated, 3, 1, skip=0.75)
    skipped = {q.id for q in pool if policy.plan(q, []).total == 0}
    assert 0.72 < len(skipped) / len(pool) < 0.78
    assert skipped == {q.id for q in pool if policy.plan(q, []).total == 0}
    later = replace(policy, iteration=4)
    both = {q.id for q in pool if later.plan(q, []).total == 0} & skipped
    assert 0.5 < len(both) / len(pool) < 0.62, "drawn anew every iteration: about 0.75 squared"
    record = policy.record(pool)
    assert {s["query_id"] for s in record["skipped"]} == skipped
    assert record["saturated_but_sampled"] == len(pool) - len(skipped)
    assert "saturated: believed rate 0.990" in record["skipped"][0]["why"]


def test_beliefs_shrink_to_the_level_and_forget():
    past = {f"q{i}": [Tried(1, n, None, False) for n in range(8)] for i in range(3)} | {
        "q4": [Tried(0, 0, None, False)] * 8 + [Tried(1, 0, None, True)] * 8,
        "q5": [Tried(1, 0, "state_reset:0.5", True)] * 8,
        "q6": [Tried(1, 0, "shuffle:BA", True)] * 2,
    }
    counts = plain_counts(past, 2, 0.5)
    assert counts["q4"] == (8.0, 4.0), "an attempt is worth half one iteration later"
    assert "q5" not in counts, "guided attempts say nothing of plain ones"
    assert counts["q6"] == (2.0, 0.0), "another order of the options is plain"
    b = beliefs(QUERIES, counts)
    assert b["q3"].mean < 0.1, "never tried, and its level never succeeds"
    assert b["q7"].mean > 0.5, "never tried, and its level often succeeds"
    assert beliefs(QUERIES, {})["q0"] == Beta(0.5, 0.5)


def world(folder: Path, **changes):
    return config(
        folder, **({"strategy": "bayes", "allocation": {"skip": 0.75}, "sample": {"k": 4, "wanted": 2}, "iterations": 3} | changes)
    )


def test_a_run_with_bayes_says_whom_it_left_out(tmp_path):
    line = run(world(tmp_path / "run")).metrics[3]
    record = read_json(tmp_path / "run" / "iter_3" / "allocation.json")
    assert line["sample/skipped"] == len(record["skipped"]) > 0
    assert line["tail/coverage_asked"] > line["tail/coverage"], "who was not asked is not covered"
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True)
    asked = {q for (q,) in ledger.query("SELECT DISTINCT query_id FROM rollouts WHERE iteration = 2")}
    ledger.close()
    assert not asked & {s["query_id"] for s in record["skipped"]}
    assert line["sample/queries"] == len(asked) + len(record["skipped"])


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 100), st.integers(1, 20), st.sampled_from(["bayes", "dart_uniform", "dart_prop2diff"]))
def test_runs_of_policies_that_remember_do_not_depend_on_order(shuffle, rows, strategy):
    def ledger(folder, **engine):
        c = world(folder, strategy=strategy, sample={"k": 4, "wanted": 2, "max_extra": 6})
        run(c | {"engine": c["engine"] | engine})
        found = Ledger(folder / "ledger.sqlite", read_only=True)
        kept = found.query("SELECT query_id, iteration, attempt, guidance, response FROM rollouts ORDER BY 1, 2, 3")
        found.close()
        return kept

    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        assert ledger(Path(a) / "r") == ledger(Path(b) / "r", max_rows=rows, shuffle=shuffle)


def test_a_killed_run_of_bayes_goes_on_as_it_would_have(tmp_path, monkeypatch):
    from tests import scripted

    calm = run(world(tmp_path / "calm"))
    left = [random.Random(3).randrange(20, 60) for _ in range(4)]
    real = scripted.respond

    def dying(request, model):
        if left and left[0] == 0:
            left.pop(0)
            raise KeyboardInterrupt
        if left:
            left[0] -= 1
        return real(request, model)

    monkeypatch.setattr(scripted, "respond", dying)
    c = world(tmp_path / "run")
    c["engine"] = {"kind": "scripted", "function": "tests.scripted:respond"}
    for _ in range(5):
        try:
            again = run(c)
            break
        except KeyboardInterrupt:
            continue
    assert not left
    strip = lambda lines: [{k: v for k, v in x.items() if not k.startswith(("time/", "engine/", "train/seconds"))} for x in lines]  # noqa: E731
    assert strip(again.metrics) == strip(calm.metrics)


@pytest.mark.parametrize(
    ("change", "says"),
    [("allocation.kind=bayesian", "bayes"), ("allocation.skip=0.99", "allocation.skip"), ("allocation.explore=0", "allocation.explore"), ("allocation.forget=1", "discount")],
)  # fmt: skip
def test_wrong_settings_are_named(change, says):
    with pytest.raises(ConfigError, match=says):
        load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "t"}]}, [change])


def test_the_bench_of_allocations_saves_attempts_at_no_less_coverage():
    from gsi.bench.allocation import allocation

    line = allocation((1, 2))
    ours = line["bayes for coverage"]
    assert ours["saved_attempts"][0] > 0.4
    assert ours["coverage_gain"][0] > -0.005
    assert line["uniform k=8"]["attempts_per_query"] == 8

"""How long the next opening is: controllers on simulated queries, the stepwise allocation, what is remembered."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsi.allocation.stepwise import Stepwise
from gsi.guidance.controllers import Curve, Moving, Trial, fit, sizes_of
from gsi.types import Plan, Query, Rollout, Tried

QUERY = Query("q", "t", "?", "1")
CONTROLLERS = {"moving": Moving(), "curve": Curve(target=0.5)}
SHARP = {"moving": Moving(), "curve": Curve(0.5, slope=24.0, mean=-12.0, sd=6.0)}  # the curve as a fit to sharp thresholds makes it


def play(controller, steps, succeeds, plain=4, extra=8, before=()):
    """Trials of one query: failed or lucky plain attempts, then guided ones; `succeeds(index of the size)`."""
    sizes = [i / (steps + 1) for i in range(steps + 1)]
    now = [Trial(0.0, succeeds(0)) for _ in range(plain)]
    for _ in range(extra):
        i = controller.choose(sizes, now, before)
        now.append(Trial(sizes[i], succeeds(i)))
    return sizes, now, [sizes.index(t.size) for t in now[plain:]]


@pytest.mark.parametrize("controller", SHARP.values(), ids=SHARP)
@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_sharp_threshold_is_found_within_few_attempts(controller, steps, data):
    threshold = data.draw(st.integers(1, steps))
    _, now, chosen = play(controller, steps, lambda i: i >= threshold)
    assert any(t.good for t in now)
    assert threshold in chosen[: math.ceil(math.log2(steps + 1)) + 3]
    assert all(abs(i - threshold) <= 1 for i in chosen[6:]), "it is not left again, but for a look one step below or above"


@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS)
def test_on_logistic_queries_about_half_of_the_guided_attempts_succeed(controller):
    """The size is right where success is a coin toss; starting far off and settling costs a little."""
    rng, tosses, gaps = random.Random(7), [], []
    for _ in range(400):
        steps, at = rng.randint(4, 12), rng.uniform(0.2, 0.8)  # half succeed with this share given
        rate = lambda i: 1 / (1 + math.exp(-12 * (i / (steps + 1) - at)))  # noqa: B023, E731
        _, now, chosen = play(controller, steps, lambda i: rng.random() < rate(i))  # noqa: B023
        tosses += [t.good for t in now[4:]]
        gaps += [chosen[-1] / (steps + 1) - at]
    assert 0.35 < sum(tosses) / len(tosses) < 0.65
    assert abs(sum(gaps) / len(gaps)) < 0.1
    assert sum(abs(g) < 0.25 for g in gaps) > 0.85 * len(gaps)


@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS)
def test_hints_shrink_as_the_model_learns_and_end(controller):
    """Five iterations; what suffices falls by two steps in each: so do the hints, down to none."""
    steps, before, means = 10, [], []
    for iteration in range(5):
        threshold = 8 - 2 * iteration
        _, now, _ = play(controller, steps, lambda i: i >= threshold, before=before)  # noqa: B023
        before = [Trial(t.size, t.good, t.age + 1) for t in (*before, *now)]
        means.append(sum(t.size for t in now[4:]) / 8)
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.5
    assert means[4] < 0.2


def test_a_remembered_query_starts_one_step_below_what_worked():
    sizes, failed = [i / 10 for i in range(10)], [Trial(0.0, False)] * 4
    before = [Trial(0.5, False, 2), Trial(0.9, True, 2), Trial(0.7, True, 1), Trial(0.6, True, 1), Trial(0.5, False, 1)]
    assert Moving().choose(sizes, failed, before) == 5
    assert Moving().choose(sizes, failed, [Trial(0.4, False, 1), Trial(0.6, False, 1)]) == 6  # nothing worked: where it ended
    assert Moving().choose(sizes, [Trial(0.0, True), *failed], before) == 1  # a near miss
    assert Moving().choose(sizes, [Trial(0.0, True)] * 2, before) == 0


def test_what_is_tried_before_weighs_less_with_age():
    sizes = [i / 10 for i in range(10)]
    chosen = [Curve().choose(sizes, [Trial(0.0, False)] * 2, [Trial(0.3, False, age)] * 6) for age in (0, 1, 2, 4)]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] > chosen[-1]


def test_the_target_is_what_is_often_enough():
    sizes, now = [i / 20 for i in range(20)], [Trial(0.0, False)] * 4
    chosen = [Curve(target=target).choose(sizes, now, ()) for target in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[2] < chosen[4]


@pytest.mark.parametrize("slope", [4.0, 8.0, 16.0])
def test_the_shared_slope_is_fitted_from_the_latest_iteration(slope):
    rng, past = random.Random(3), {}
    for q in range(400):
        a = rng.gauss(-slope / 2, 1.5)
        tried = [Tried(0, 0, "adaptive:0.9", False)]  # an older iteration, which would say otherwise
        for i in range(12):
            size = 0.0 if i < 4 else rng.randint(1, 19) / 20
            label = f"adaptive:{size:g}" if size else None
            tried.append(Tried(1, i, label, rng.random() < 1 / (1 + math.exp(-(a + slope * size)))))
        past[f"q{q}"] = tried
    fitted = fit(Curve(target=0.6), past, sizes_of("adaptive"))
    assert slope / 1.6 <= fitted.slope <= slope * 1.6
    assert abs(fitted.mean + slope / 2) <= 2
    assert fitted.target == 0.6
    assert fit(Curve(), past, sizes_of("own_prefix")) == Curve()  # no such hint was tried
    assert fit(Curve(), {}, sizes_of("adaptive")) == Curve()


def test_labels_are_read_by_kind():
    read = sizes_of("adaptive")
    assert [read(x) for x in (None, "shuffle:BCA", "adaptive:0.25", "state_reset:0.5", "adaptive")] == [0.0, 0.0, 0.25, None, None]


# ------------------------------------------------------------------------------------------------------- stepwise


def rollout(attempt, good, guidance=None):
    return Rollout(
        "q", "t", None, 0, attempt, "s", guidance, "", "", "", "", None, None, 0, 0, 0, "stop", 0, "m", "correct" if good else "wrong", good, None, None, "", ""
    )  # fmt: skip


def launches(policy, outcomes):
    """(attempts, guided, the length of the history when each was launched), by the protocol."""
    launched, totals = [], []
    n = 0
    while True:
        plan = policy.plan(QUERY, [rollout(i, outcomes[i]) for i in range(n)])
        launched += [(plan.guided, n)] * (plan.total - len(launched))
        totals.append(plan.total)
        assert totals == sorted(totals)
        if plan.total == n:
            return launched
        n += 1


@given(st.lists(st.booleans(), min_size=40, max_size=40), st.integers(1, 8), st.integers(0, 6), st.integers(0, 12), st.integers(1, 5))
def test_a_group_is_launched_when_the_one_before_is_graded(outcomes, k, wanted, extra, group):
    launched = launches(Stepwise(k, wanted, extra, group=group), outcomes)
    assert launched[:k] == [(False, 0)] * k
    assert all(guided and at >= k for guided, at in launched[k:])
    for i, (_, at) in enumerate(launched[k:], k):
        assert at <= i < at + group, "nothing else of the query is in flight but its group"
    n = len(launched)
    assert n <= k + extra
    assert n == k + extra or sum(outcomes[:n]) >= wanted
    if group == 1:
        expected = k
        while sum(outcomes[:expected]) < wanted and expected < k + extra:
            expected += 1
        assert n == expected


def test_a_query_that_was_hopeless_gets_few_plain_attempts_until_one_succeeds():
    hopeless = {
        "q": [Tried(0, i, None, True) for i in range(3)]
        + [Tried(1, i, None, False) for i in range(3)]
        + [Tried(1, 3, "adaptive:0.5", True)]
    }
    policy = Stepwise(k=8, wanted=4, max_extra=8, probes=2, past=hopeless)
    assert policy.plan(QUERY, []) == Plan(2)
    assert policy.plan(QUERY, [rollout(0, False), rollout(1, False)]) == Plan(3, True)
    assert policy.plan(QUERY, [rollout(0, False), rollout(1, True)]) == Plan(8)
    assert len(launches(policy, [False] * 20)) == 10
    assert policy.plan(Query("other", "t", "?", "1"), []) == Plan(8)
    assert Stepwise(1, 4, 8, probes=2, past=hopeless).plan(QUERY, []) == Plan(1)


@settings(max_examples=200)
@given(st.lists(st.booleans(), min_size=30, max_size=30), st.integers(1, 6), st.integers(1, 6))
def test_a_hopeless_query_obeys_the_protocol_too(outcomes, probes, group):
    hopeless = {"q": [Tried(0, 0, None, False)]}
    launched = launches(Stepwise(6, 3, 8, group=group, probes=probes, past=hopeless), outcomes)
    assert len(launched) <= 6 + 8
    assert sum(not guided for guided, _ in launched) == (6 if any(outcomes[: min(probes, 6)]) else min(probes, 6))

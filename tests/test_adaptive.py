"""Guidance that adapts: adaptive, ladder, own_prefix, own_correction, through the sampler and through gsi.run."""

import json
import random
import tempfile
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import scripted
from hypothesis import given, settings
from hypothesis import strategies as st

import gsi
from gsi import guidance
from gsi.allocation import Quota
from gsi.allocation.stepwise import Stepwise
from gsi.asking import ASK, SelfTeacher
from gsi.attempts import Attempts
from gsi.config import ConfigError, load_config
from gsi.engines.scripted import ByteTokenizer, ScriptedEngine
from gsi.guidance.adaptive import Adaptive
from gsi.guidance.controllers import Curve, Moving
from gsi.guidance.cue import Cue
from gsi.guidance.interactive import own_correction
from gsi.guidance.ladder import RUNGS, Ladder
from gsi.guidance.own_prefix import OwnPrefix
from gsi.guidance.state_reset import StateReset
from gsi.guidance.steps import first_statement, reveals, split_steps
from gsi.lab import chain
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.prompts import Renderer
from gsi.recording import RecordingTeacher
from gsi.sampling import Sampler
from gsi.types import Hint, Query, Reply, Rollout, Sampling, Text, Tried
from gsi.verify.steps import check_steps

RENDERER = Renderer(ByteTokenizer(), template="{question} ")
QUERIES = chain.queries(5, 2, levels=(2, 5, 8))
QUIET = Reporter("quiet")


class Says:
    def __init__(self, text):
        self.text, self.asked = text, []

    def ask(self, messages):
        self.asked.append("\n".join(m["content"] for m in messages))
        return Reply(self.text, 10, 5, "t")


class Steps:
    """Grades chain responses at once, steps and all."""

    def submit(self, query, response):
        done: Future = Future()
        done.set_result(chain.check(response, query))
        return done


def weak(request, model):
    """The right steps, each with a chance to go wrong that is larger the further the way still is."""
    if request.guidance == ASK:
        return f"Look again at step {request.seed % 9}?"
    rng, query = random.Random(request.seed), next(q for q in QUERIES if q.id == request.query.id)
    rest = query.rationale[len(request.given.text) :].split(" ; ")
    for i, step in enumerate(rest):
        if rng.random() < 0.05 * (len(rest) - i):
            words = step.split(" ")
            words[-1] = str((int(words[-1]) + 1 + rng.randrange(20)) % 23)
            rest[i] = " ".join(words)
            break
    return " ; ".join(rest)


def policies(kind, past):
    """Guidance by name for the sampler, and whether it asks the model itself."""
    cutter = StateReset(RENDERER)
    own = {"past": past, "accept": "steps"}
    return {
        "adaptive-moving": lambda t: Adaptive(cutter, Moving(), **own),
        "adaptive-curve": lambda t: Adaptive(cutter, Curve(), **own),
        "ladder": lambda t: guidance.build(load_config(settings_of("ladder")), RENDERER, t, past=lambda: past),
        "own_prefix": lambda t: OwnPrefix(cutter, Moving(), **own),
        "own_correction": own_correction,
    }[kind]


def settings_of(strategy, **more):
    return {"model": "m", "output_dir": "out", "strategy": strategy, "accept": "steps", "tasks": [{"name": "chain"}], **more}


def sample(folder, kind, k, group, rows, shuffle, past, stop_after=None, quota=False):
    """One sampling pass; the ledger's rows without time stamps and its teacher calls."""
    ledger, count = Ledger(Path(folder) / "ledger.sqlite"), [0]

    def respond(request, model):
        count[0] += 1
        if stop_after and count[0] > stop_after:
            raise KeyboardInterrupt
        return weak(request, model)

    itself = SelfTeacher(RENDERER, Sampling(), 5, "m")
    asks = kind in ("ladder", "own_correction")
    policy = policies(kind, past)(RecordingTeacher(itself, ledger))
    allocation = Quota(k, 3, 9, "steps") if quota else Stepwise(k, 3, 9, "steps", group, 2, past)
    sampler = itself.work = Sampler(
        QUERIES, iteration=1, allocation=allocation, guidance=policy, renderer=RENDERER, grader=Steps(), ledger=ledger,
        sampling=lambda attempt: Sampling(), seed=5, strategy="s", model="m", accept="steps", hint_workers=8 if asks else 0,
    )  # fmt: skip
    try:
        with sampler:
            try:
                ScriptedEngine(respond, "m", rows, shuffle).run(itself if asks else sampler)
            finally:
                itself.close()
    except KeyboardInterrupt:
        pass
    found = [replace(r, created_at="") for r in ledger.rows()]
    calls = ledger.query("SELECT query_id, attempt, messages, reply FROM teacher_calls ORDER BY query_id, attempt")
    ledger.close()
    return found, calls


KINDS = ("adaptive-moving", "adaptive-curve", "ladder", "own_prefix", "own_correction")
PAST = {q.id: [Tried(0, i, label, good) for i, (label, good) in enumerate([(None, False)] * 4 + [("adaptive:0.5", True), ("ladder_long:0.6", True)])]
        for q in QUERIES[3:]}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(
    k=st.integers(1, 4),
    group=st.integers(1, 3),
    rows=st.integers(1, 30),
    shuffle=st.integers(0, 10**6),
    stop=st.integers(3, 60),
    quota=st.booleans(),
)
def test_the_ledger_is_the_same_for_any_order_batch_and_interruption(kind, k, group, rows, shuffle, stop, quota):
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b, tempfile.TemporaryDirectory() as c:
        calm = sample(a, kind, k, group, 1, None, PAST, quota=quota)
        assert sample(b, kind, k, group, rows, shuffle, PAST, quota=quota) == calm
        for i in range(400):
            if len(sample(c, kind, k, group, rows, shuffle + i, PAST, stop_after=stop, quota=quota)[0]) == len(calm[0]):
                break
        assert sample(c, kind, k, group, rows, shuffle, PAST, quota=quota) == calm
    rows_, calls = calm
    assert any(r.guided for r in rows_)
    assert bool(calls) == (kind in ("ladder", "own_correction"))
    if kind == "own_correction":
        return  # the paper's budget: no quarter is promised
    for q in QUERIES:
        mine = [r for r in rows_ if r.query_id == q.id]
        assert 4 * sum(not r.guided for r in mine) >= len(mine), "a quarter of a query's attempts stay plain"


@pytest.mark.parametrize("controller", [Moving(), Curve(), Curve(target=0.95)])
def test_an_opening_never_passes_the_step_that_states_the_answer(controller):
    policy = Adaptive(StateReset(RENDERER), controller)
    for q in QUERIES:
        steps, history = split_steps(q.rationale), [rollout(q, i) for i in range(4)]
        sizes = []
        for index in range(9):  # everything fails
            hint = policy.hint(q, history, index)
            assert q.rationale.startswith(hint.given.text)
            assert len(split_steps(hint.given.text)) <= first_statement(steps, q.answer)
            assert hint.question is None
            assert hint.label == f"adaptive:{float(hint.label.partition(':')[2]):g}"
            sizes.append(float(hint.label.partition(":")[2]))
            history.append(rollout(q, 4 + index, guidance=hint.label))
        assert sizes == sorted(sizes)
        assert len(split_steps(hint.given.text)) == first_statement(steps, q.answer), "in the end it gives all it may"


def rollout(query, attempt, status="wrong", response="", guidance=None, steps_ok=None, detail="", iteration=0, given=""):
    return Rollout(
        query_id=query.id, task=query.task, level=query.level, iteration=iteration, attempt=attempt, strategy="s", guidance=guidance, prompt="", given=given,
        response=response, completion=response, prompt_ids=None, response_ids=None, prompt_tokens=0, given_tokens=0, generated_tokens=0,
        finish_reason="stop", seed=0, model="m", status=status, correct=status == "correct", steps_ok=steps_ok, extracted=None, detail=detail, created_at="",
    )  # fmt: skip


def test_no_rationale_no_hint():
    q = replace(QUERIES[0], rationale=None)
    assert Adaptive(StateReset(RENDERER), Moving()).hint(q, [rollout(q, 0)], 0) is None
    rungs = guidance.build(load_config(settings_of("ladder", guidance={"rungs": ["short", "long", "rationale"]})), RENDERER)
    assert rungs.hint(q, [rollout(q, 0)], 0) is None


# ------------------------------------------------------------------------------------------------------------ ladder


class Rung:
    def __init__(self, label):
        self.label = label

    def hint(self, query, history, index):
        return Hint(self.label, "help") if self.label else None


def climb(ladder, outcomes, plain=3):
    q, kinds = QUERIES[0], []
    history = [rollout(q, i) for i in range(plain)]
    for index, good in enumerate(outcomes):
        label = ladder.hint(q, history, index).label
        kinds.append(label.removeprefix("ladder_"))
        history.append(rollout(q, plain + index, "correct" if good else "wrong", guidance=label))
    return kinds


def test_a_query_climbs_only_as_far_as_needed():
    ladder = Ladder({name: Rung("x:0.3" if name in ("short", "long") else "x") for name in RUNGS})
    assert climb(ladder, [0, 0, 1, 1, 0, 0, 0]) == ["cue", "short:0.3", "long:0.3", "long:0.3", "long:0.3", "answer", "rationale"]
    assert climb(ladder, [0] * 7) == ["cue", "short:0.3", "long:0.3", "answer", "rationale", "rationale", "rationale"]
    q = QUERIES[0]
    near_miss = [rollout(q, 0), rollout(q, 1, "correct")]
    assert ladder.hint(q, near_miss, 0).label == "ladder_cue"


def test_a_rung_that_has_nothing_to_give_is_passed_over():
    assert climb(Ladder({"cue": Rung(None), "short": Rung("x:0.2"), "long": Rung(None), "answer": Rung("x")}), [0, 0]) == [
        "short:0.2",
        "answer",
    ]


def test_the_rung_is_remembered_and_starts_lower_again():
    rungs = {name: Rung("x") for name in RUNGS}
    tried = [(0, "ladder_rationale", True), (1, "ladder_long:0.6", False), (1, "ladder_answer", True), (1, "ladder_rationale", True)]
    past = {QUERIES[0].id: [Tried(n, i, label, good) for i, (n, label, good) in enumerate(tried)]}
    assert climb(Ladder(rungs, past), [0, 0]) == ["long", "answer"]  # the answer worked last: one below
    failed = {QUERIES[0].id: [Tried(0, 0, "ladder_cue", False), Tried(0, 1, "ladder_short:0.2", False)]}
    assert climb(Ladder(rungs, failed), [0]) == ["cue"]
    del rungs["long"]  # left out by now
    assert climb(Ladder(rungs, past), [0, 0]) == ["short", "answer"]


def test_every_rung_can_be_left_out():
    for i, gone in enumerate(RUNGS):
        left = [r for r in RUNGS if r != gone]
        policy = guidance.build(load_config(settings_of("ladder", guidance={"rungs": left})), RENDERER, Says("think"))
        assert [k.partition(":")[0] for k in climb(policy, [0] * 4, plain=4)] == left, i


def test_ladder_rungs_give_more_and_more():
    policy = guidance.build(load_config(settings_of("ladder")), RENDERER, Says("add step by step"))
    q = QUERIES[-1]
    hints = {name: rung.hint(q, [], 0) for name, rung in policy.rungs.items()}
    assert "add step by step" in hints["cue"].question
    assert q.rationale not in hints["cue"].question
    assert len(hints["short"].given.text) < len(hints["long"].given.text) < len(q.rationale)
    assert q.rationale in hints["rationale"].question


@pytest.mark.parametrize(
    ("answer", "question", "text", "leaks"),
    [
        ("30", "5 pencils in 8 boxes", "So there are 30 left.", True),
        ("30", "5 pencils in 8 boxes", "Try 30.0", True),
        ("1000", "a thousand", "about 1,000 things", True),
        ("30", "5 pencils in 8 boxes", "Multiply 5 by 8, then take away.", False),
        ("30", "30 pencils", "The 30 pencils are shared.", False),  # the question says it too
        (r"\frac{1}{2}", "a coin", "It is 0.5", True),
        ("x+1", "simplify", "You should get x + 1.", True),
        ("x+1", "simplify", "Factor first.", False),
        ("3", "count", "There are 13 of 35.", False),
        ("72", "how far", "It goes 72km.", True),
        ("2", "how many", "Look at the 2nd step.", False),
        ("2, 6", "solve", "The roots are 2, 6.", True),
        ("2, 6", "solve", "There are 26 ways.", False),
    ],
)
def test_what_gives_the_answer_away(answer, question, text, leaks):
    q = Query("q", "t", question, answer)
    assert reveals(text, q) == leaks
    assert (Cue(Says(text)).hint(q, [], 0) is None) == leaks
    assert (own_correction(Says(text)).hint(q, [rollout(q, 0, response="no idea")], 0) is None) == leaks


def test_an_option_is_given_away_by_its_text_or_its_letter():
    q = Query("q", "t", "How far?", "B", options=("10 km", "60 km"))
    assert reveals("The answer is B", q)
    assert reveals("so 60 km", q)
    assert not reveals("A good start: how far in one hour?", q)


@pytest.mark.parametrize("shown", ["Answer Choices: (A) 25 (B) 36 (C) 40", "a ) 25 , b ) 36 , c ) 40", "A. 25\nB. 36\nC. 40"])
def test_that_the_question_shows_its_options_tells_nobody_which_is_right(shown):
    q = Query("q", "aqua", f"12 boxes with 3 pens each: how many pens?\n{shown}", "B", options=("25", "36", "40"))
    for text in ("12 x 3 = 36, so which option holds 36?", "Why did you not choose option B?", "Is it (B)?", "The result should be 36."):
        assert reveals(text, q)
        assert Cue(Says(text)).hint(q, [], 0) is None
        assert own_correction(Says(text)).hint(q, [rollout(q, 0, response="no idea")], 0) is None
    assert not reveals("How many pens are in 3 of the 12 boxes?", q)
    assert not reveals("A box holds 3 pens. Before you choose, multiply.", q)


# -------------------------------------------------------------------------------------------------------- own_prefix


def own(earlier=(), **more):
    return OwnPrefix(StateReset(RENDERER), Moving(), accept="steps", earlier=lambda query_id: list(earlier), **more)


def wrong_at(query, step):
    """A response whose `step` (from 1) is the first wrong one, as graded."""
    steps = query.rationale.split(" ; ")
    *front, value = steps[step - 1].split()
    steps[step - 1] = " ".join([*front, str((int(value) + 1) % 23)])
    response = " ; ".join(steps)
    verdict = chain.check(response, query)
    return response, {"status": verdict.status, "steps_ok": verdict.steps_ok, "detail": verdict.detail}


def test_an_unsolved_query_goes_on_from_its_longest_right_beginning():
    q = replace(QUERIES[-1], rationale=None)  # nothing of a reference is read
    full = QUERIES[-1]
    attempts = []
    for i, step in enumerate((2, 5, 3)):
        response, graded = wrong_at(full, step)
        attempts.append(rollout(q, i, response=response, **graded))
    hint = own().hint(q, attempts, 0)
    kind, size = hint.label.split(":")
    assert kind == "own_steps"
    assert hint.given.text == "".join(split_steps(attempts[1].response)[:4])
    assert float(size) == pytest.approx(len(hint.given.text) / len(attempts[1].response), abs=0.006)
    first, graded = wrong_at(full, 1)
    assert own().hint(q, [rollout(q, 0, response=first, **graded)], 0) is None


def test_without_beginnings_only_solutions_are_opened():
    q, full = replace(QUERIES[-1], rationale=None), QUERIES[-1]
    response, graded = wrong_at(full, 3)
    failed = [rollout(q, i, response=response, **graded) for i in range(4)]
    assert own(beginnings=False).hint(q, failed, 0) is None
    later = [rollout(q, i, iteration=1) for i in range(4)]
    assert own(failed).hint(q, later, 0).label.startswith("own_steps")
    assert own(failed, beginnings=False).hint(q, later, 0) is None
    solved = [*failed[:3], rollout(q, 3, response=full.rationale, status="correct", steps_ok=True)]
    assert own(solved, beginnings=False).hint(q, later, 0).label.startswith("own_prefix")


def test_repeating_one_mistake_makes_the_next_attempt_warmer_and_getting_further_makes_it_cool_again():
    q, full = replace(QUERIES[-1], rationale=None), QUERIES[-1]
    response, graded = wrong_at(full, 3)
    history = [rollout(q, i, response=response, **graded) for i in range(4)]
    begin = "".join(split_steps(response)[:2])
    warmth = []
    for i in range(6):
        hint = own(warmer=0.3).hint(q, history, i)
        assert hint.given.text == begin
        warmth.append(hint.warmer)
        history.append(rollout(q, i + 4, response=response, given=begin, guidance=hint.label, **graded))
    assert warmth == pytest.approx([0, 0.3, 0.6, 0.9, 0.9, 0.9])
    further, graded = wrong_at(full, 4)
    history.append(rollout(q, 10, response=further, given=begin, guidance="own_steps:0.5", **graded))
    assert own(warmer=0.3).hint(q, history, 6).warmer == 0
    before = [replace(r, iteration=0) for r in history]  # what earlier iterations reached is where this one begins, with a model of its own
    hint = own(earlier=before, warmer=0.3).hint(q, [rollout(q, i, iteration=1) for i in range(4)], 0)
    assert (hint.given.text, hint.warmer) == ("".join(split_steps(further)[:3]), 0)


def test_what_earlier_iterations_left_is_read_and_checked_once():
    """On a task whose verdict names no step every beginning is checked anew: a query with 60 attempts behind it would hold up the scheduler at each of its next ones."""
    q, full, read, checked = replace(QUERIES[-1], rationale=None), QUERIES[-1], [], []
    response, _ = wrong_at(full, 3)
    before = [rollout(q, i, response=response, steps_ok=False) for i in range(4)]

    def first_wrong(query, text):
        checked.append(text)
        return 2

    policy = OwnPrefix(StateReset(RENDERER), Moving(), earlier=lambda query_id: read.append(query_id) or before, first_wrong=first_wrong)
    history = [replace(rollout(q, i, "error", iteration=1), finish_reason="error") for i in range(4)]
    for i in range(6):
        assert policy.hint(q, history, i).given.text == "".join(split_steps(response)[:2])
        history.append(replace(history[0], attempt=4 + i))
    assert (len(read), len(checked)) == (1, 4)
    assert policy.hint(replace(q, id="another"), history, 0)
    assert (len(read), len(checked)) == (2, 8)


def test_a_warmer_hint_raises_the_temperature_of_its_own_attempt_only():
    attempts = Attempts(RENDERER, 0, lambda attempt: Sampling(0.7, 0.9, 20), 1, "s", "m")
    q = QUERIES[0]
    warm = attempts.request(q, attempts.prompt(q), 4, Hint("own_steps:0.5", warmer=0.6)).sampling
    assert (warm.temperature, warm.top_p, warm.max_new_tokens) == (pytest.approx(1.3), 0.9, 20)
    assert attempts.request(q, attempts.prompt(q), 5, Hint("own_steps:0.5")).sampling.temperature == 0.7


def test_without_a_step_check_an_unsolved_query_gets_nothing():
    q = QUERIES[-1]
    assert own().hint(q, [rollout(q, i, response="a\nb\nc") for i in range(4)], 0) is None


def test_where_equations_are_checked_the_first_false_one_ends_the_right_part(monkeypatch):
    from gsi.build import make_guidance

    q = Query("g", "gsm8k", "?", "30")
    text = "He has 5 * 8 = 40.\nHe gives 40 / 4 = 11.\nSo 40 - 11 = 29.\nThe answer is 29"
    policy = make_guidance(load_config(settings_of("own_prefix", tasks=[{"name": "gsm8k"}])), RENDERER, None, [q])
    verdict = gsi.grade(text, "30", "gsm8k")
    assert verdict.steps_ok is False
    attempt = rollout(q, 0, response=text, steps_ok=False)
    looks = []
    monkeypatch.setattr("gsi.build.check_steps", lambda *a: looks.append(a) or check_steps(*a))
    for _ in range(3):  # its next attempts, each of which goes on from there
        assert policy.hint(q, [attempt], 0).given.text == "He has 5 * 8 = 40.\n"
    assert len(looks) == 2


def test_an_own_solution_is_given_from_its_start_and_never_to_its_answer():
    q = replace(QUERIES[-1], rationale=None)
    solution = QUERIES[-1].rationale
    solved = rollout(q, 1, "correct", solution, steps_ok=True)
    hint = own().hint(q, [rollout(q, 0), solved, rollout(q, 2)], 0)
    assert hint.label.startswith("own_prefix:")
    assert hint.given.text == split_steps(solution)[0]  # a near miss: the shortest
    before = replace(solved, iteration=0)
    for index in range(3):
        hint = own(earlier=[before]).hint(q, [rollout(q, i, iteration=1) for i in range(4)], index)
        assert solution.startswith(hint.given.text)
        assert len(split_steps(hint.given.text)) <= first_statement(split_steps(solution), q.answer)
    lucky = rollout(q, 0, "correct", solution, steps_ok=False)
    assert OwnPrefix(StateReset(RENDERER), Moving(), accept="answer").hint(q, [lucky], 0) is None


# ------------------------------------------------------------------------------------------------- asking the model


def test_a_correction_asks_the_model_itself_about_its_mistake():
    q, teacher = QUERIES[-1], Says("Is the third step right?")
    response, graded = wrong_at(q, 3)
    hint = own_correction(teacher).hint(q, [rollout(q, 0, response=response, **graded | {"status": "wrong"})], 0)
    assert hint.label == "own_correction"
    (asked,) = teacher.asked
    assert response in asked
    assert q.answer in asked
    assert q.rationale not in asked
    assert "Is the third step right?" in hint.question


def test_a_closed_self_teacher_lets_its_askers_go():
    from concurrent.futures import CancelledError

    teacher = SelfTeacher(RENDERER, Sampling(), 1, "m")
    teacher.close()
    from gsi.recording import asking

    asking.key = ("q", 0, 0)
    with pytest.raises(CancelledError):
        teacher.ask([{"role": "user", "content": "?"}])


def responds(request, model):
    """The scripted world's model, which also answers questions about its mistakes."""
    if request.guidance == ASK:
        assert "eyes only" in request.prompt.text
        return "Which value did the step before give?"
    return scripted.respond(request, model)


def run(tmp_path, name, **changes):
    changes = {
        "engine": {"kind": "scripted", "function": f"{__file__}:responds"},
        "sample": {"k": 4, "wanted": 3, "max_extra": 6},
    } | changes
    return gsi.run(scripted.config(tmp_path / name, **changes), reporter=QUIET)


@pytest.mark.parametrize("strategy", ["adaptive", "ladder", "own_prefix", "own_correction"])
def test_a_run_of_every_strategy(tmp_path, check_folder, strategy):
    result = run(tmp_path, "run", strategy=strategy, accept="steps")
    assert check_folder(result.path) == []
    last = result.metrics[-1]
    assert last["sample/accepted"] > 0
    assert last["sample/guided"] > 0
    assert last["sample/yield"] > 0
    with_calls = strategy in ("ladder", "own_correction")
    assert ("teacher/tokens" in last) == with_calls
    if strategy in ("adaptive", "own_prefix"):
        kinds = ("adaptive",) if strategy == "adaptive" else ("own_prefix", "own_steps")
        kind = next(k for k in kinds if f"sample/{k}/size" in last)
        tried = [
            last[f"sample/{kind}/size_{x}/rollouts"]
            for x in ("0", "0.2", "0.4", "0.6", "0.8")
            if f"sample/{kind}/size_{x}/rollouts" in last
        ]
        assert sum(tried) == last[f"sample/{kind}/rollouts"]
        assert 0 < last[f"sample/{kind}/size"] < 1
    for row in pq.read_table(result.path / "iter_2" / "train.parquet").to_pylist():
        assert not any(word in row["prompt"] for word in ("hint", "teacher", "attempt")), "a hint never trains"


@pytest.mark.parametrize("controller", ["moving", "curve"])
def test_hints_shrink_in_a_run_whose_model_learns(tmp_path, controller):
    """From the second iteration on: in the first the sizes are still being looked for."""
    lines = run(tmp_path, "run", strategy="adaptive", iterations=4, guidance={"controller": controller}).metrics
    assert lines[4]["sample/adaptive/size"] < lines[2]["sample/adaptive/size"]
    assert lines[4]["sample/adaptive/rollouts"] < lines[1]["sample/adaptive/rollouts"]


def guesses(request, model):
    """A little arithmetic, right or wrong, and a guess."""
    if request.guidance == ASK:
        return "Did you add?"
    rng = random.Random(request.seed)
    return f"1 + 1 = {rng.choice((2, 3))}.\nThe answer is {rng.randrange(4)}"


def test_own_strategies_need_no_rationale_and_others_say_so(tmp_path):
    bare = [Query(f"q{i}", "gsm8k", f"Question {i}?", str(i % 4)) for i in range(12)]
    world = {"tasks": [{"name": "gsm8k"}], "iterations": 1, "engine": {"kind": "scripted", "function": f"{__file__}:guesses"}}
    for strategy in ("own_prefix", "own_correction"):
        config = scripted.config(tmp_path / strategy, strategy=strategy, **world)
        line = gsi.run(config, bare, reporter=QUIET).metrics[-1]
        assert line["sample/guided"] > 0
        assert line["train/rows"] > 0
    for strategy in ("adaptive", "state_reset"):
        with pytest.raises(gsi.GsiError, match=r"needs reference rationales.*own_prefix"):
            gsi.run(scripted.config(tmp_path / "no", strategy=strategy, **world), bare, reporter=QUIET)


def test_the_models_own_answers_count_as_cost(tmp_path):
    result = run(tmp_path, "run", strategy="own_correction", iterations=1)
    line, state = result.metrics[-1], json.loads((result.path / "run.json").read_text())
    assert line["teacher/calls"] > 0
    with Ledger(result.path / "ledger.sqlite", read_only=True)._db as db:
        assert {m for (m,) in db.execute("SELECT DISTINCT model FROM teacher_calls")} == {state["models"]["0"]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": "adaptive", "guidance": {"controller": "bisect"}}, "guidance.controller"),
        ({"strategy": "adaptive", "guidance": {"target": 1}}, "guidance.target"),
        ({"strategy": "ladder", "guidance": {"rungs": ["cue", "cue"]}}, "names a rung twice"),
        ({"strategy": "ladder", "guidance": {"rungs": []}}, "guidance.rungs"),
        ({"strategy": "ladder", "guidance": {"rungs": ["cues"]}}, "guidance.rungs"),
        ({"guidance": {"kind": "cue"}}, "teacher: guidance `cue` needs one"),
        ({"teacher": {"kind": "server", "model": "m"}}, "missing key 'url'"),
        ({"allocation": {"kind": "stepwise", "group": 0}}, "allocation.group"),
        ({"train": {"on_given": "surprise"}}, "train.on_given"),
        (
            {"strategy": "own_prefix", "engine": {"kind": "openai", "url": "http://x/v1", "api": "chat"}},
            "own_prefix continues a given prefix",
        ),
    ],
)
def test_config_errors_name_the_key_and_the_fix(changes, says):
    with pytest.raises(ConfigError) as e:
        load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "chain"}]} | changes)
    assert says in str(e.value)


def test_a_ladder_without_a_cue_asks_nobody():
    c = load_config(settings_of("ladder", guidance={"rungs": ["short", "long"]}))
    assert not c.guidance.asks
    assert guidance.build(c, RENDERER).hint(QUERIES[-1], [rollout(QUERIES[-1], 0)], 0).given != Text("")


def test_the_labs_comparison_counts_what_it_says(tmp_path):
    from gsi.lab import hints

    for arm in hints.ARMS:
        assert load_config(hints.config(tmp_path, "steps", 1, arm)).accept == "steps"
    test = [{"name": "chain", "args": {"seed": 2, "per_level": 2}}]
    path = run(tmp_path, "run", strategy="adaptive", accept="steps", evaluate={"validation": 0, "tasks": test}).path
    ledger = Ledger(path / "ledger.sqlite", read_only=True)
    hard = [r for r in ledger.rows() if r.level >= 7]
    ledger.close()
    found = hints.figures(path, "steps")
    good = [r for r in hard if r.accepted("steps")]
    assert found["tokens"] == sum(r.generated_tokens for r in hard)
    assert found["per ktoken"] == pytest.approx(1000 * len({(r.query_id, r.iteration) for r in good}) / found["tokens"])
    assert found["solved"] == len({r.query_id for r in good if r.iteration == 1}) / 16
    helped = [r for r in good if r.guided]
    assert found["given"] == pytest.approx(sum(r.given_tokens for r in helped) / sum(r.given_tokens + r.generated_tokens for r in helped))
    assert found["lucky"] == 0
    assert 0 <= found["accuracy"] <= 1

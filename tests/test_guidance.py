"""Allocations and guidances: who gets the next attempt, and what it is given."""

import functools
import gzip
import json
import random
import re

import pytest
import scripted
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gsi import allocation, guidance
from gsi.cli import main
from gsi.config import load_config
from gsi.guidance.answer_driven import AnswerDriven
from gsi.guidance.interactive import ATTEMPT_CHARS, Interactive, shorten
from gsi.guidance.rationale_driven import RationaleDriven
from gsi.guidance.state_reset import StateReset
from gsi.guidance.steps import first_statement, split_steps
from gsi.prompts import Renderer
from gsi.types import GsiError, Plan, Query, Reply, Rollout, Text

CHAIN = "e 3 + 4 = 7 ; f 7 - 5 = 2 ; # 2"
GSM = "He has 5 x 8 = 40 pencils.\nHe gives away 40 / 4 = 10.\n\nSo he keeps 40 - 10 = 30.\nThe answer is 30"
MATH = r"By the theorem, $P(3) = 9.5.$  Thus $x = 4,$ e.g. by division. Hence the remainder is $\boxed{1,\!018}.$. The answer is 1018"


def query(rationale=CHAIN, answer="2", task="chain", **more):
    return Query(id="q", task=task, question="d 3 e + 4 f - 5 ?", answer=answer, rationale=rationale, **more)


def rollout(attempt=0, status="wrong", completion="", steps_ok=None):
    return Rollout(
        query_id="q", task="chain", level=None, iteration=0, attempt=attempt, strategy="s", guidance=None, prompt="", given="",
        response="<think>...</think>" + completion, completion=completion, prompt_ids=None, response_ids=None, prompt_tokens=0,
        given_tokens=0, generated_tokens=0, finish_reason="stop", seed=0, model="m", status=status, correct=status == "correct",
        steps_ok=steps_ok, extracted=None, detail="", created_at="",
    )  # fmt: skip


def config(**more):
    return load_config({"model": "m", "output_dir": "out", "tasks": [{"name": "chain"}], **more})


# ------------------------------------------------------------------------------------------------------- allocation

OUTCOMES = st.lists(st.booleans(), min_size=60, max_size=60)
NUMBERS = {"k": st.integers(1, 10), "wanted": st.integers(0, 10), "max_extra": st.integers(0, 12)}


def history(outcomes):
    return [rollout(i, "correct" if good else "wrong") for i, good in enumerate(outcomes)]


def one_by_one(outcomes, k, wanted, max_extra):
    """How many attempts the paper's loop draws."""
    n = k
    while sum(outcomes[:n]) < wanted and n < k + max_extra:
        n += 1
    return n


def side_by_side(policy, outcomes):
    """Plays the protocol: one plan for every n, an attempt guided or plain as the plan that launched it says."""
    launched, n, totals = [], 0, []
    while True:
        plan = policy.plan(query(), history(outcomes[:n]))
        launched += [plan.guided] * (plan.total - len(launched))
        totals.append(plan.total)
        if plan.total == n:
            return launched, totals
        n += 1


@given(OUTCOMES, st.integers(1, 10))
def test_fixed_draws_k_plain_attempts(outcomes, k):
    assert side_by_side(allocation.Fixed(k), outcomes)[0] == [False] * k


@given(OUTCOMES, *NUMBERS.values())
def test_quota_draws_what_one_by_one_drawing_draws(outcomes, k, wanted, max_extra):
    launched, totals = side_by_side(allocation.Quota(k, wanted, max_extra), outcomes)
    drawn = one_by_one(outcomes, k, wanted, max_extra)
    assert launched == [False] * k + [True] * (drawn - k)
    assert totals == sorted(totals)
    plain = sum(outcomes[:k])
    assert sum(outcomes[:drawn]) <= max(plain, wanted)


def test_quota_launches_side_by_side_as_many_as_are_missing():
    quota = allocation.Quota(k=2, wanted=4, max_extra=8)
    extras = [([0, 0], 6), ([1, 0], 5), ([1, 0, 0], 6), ([1, 0, 1], 5), ([0] * 9, 10), ([0] * 10, 10)]
    for outcomes, plan in [([], Plan(2)), ([0], Plan(2)), *((o, Plan(total, True)) for o, total in extras)]:
        assert quota.plan(query(), history(outcomes)) == plan


def test_quota_counts_what_is_accepted():
    lucky = [rollout(i, "correct", steps_ok=False) for i in range(4)]
    assert allocation.Quota(4, 4, 8, "answer").plan(query(), lucky).total == 4
    assert allocation.Quota(4, 4, 8, "steps").plan(query(), lucky).total == 8


def test_allocation_is_built_from_the_config():
    assert allocation.build(config()) == allocation.Fixed(8)
    assert allocation.build(config(strategy="state_reset", accept="steps")) == allocation.Quota(8, 4, 8, "steps")
    assert allocation.build(config(strategy="brute_force", sample={"k": 2, "wanted": 1, "max_extra": 3})) == allocation.Quota(2, 1, 3)


# ---------------------------------------------------------------------------------------------- answer and rationale


def test_answer_driven_shows_the_answer_and_nothing_else():
    hint = AnswerDriven().hint(query(rationale="SECRET", answer="ANSWER"), [], 0)
    assert hint.label == "answer_driven"
    assert hint.given == Text("")
    assert "ANSWER" in hint.question
    assert query().question in hint.question
    assert "SECRET" not in hint.question


def test_rationale_driven_shows_the_rationale():
    hint = RationaleDriven().hint(query(rationale="step \\frac{1}{2} {answer}"), [], 0)
    assert hint.label == "rationale_driven"
    assert "step \\frac{1}{2} {answer}" in hint.question  # braces of a value are no fields
    assert hint.given == Text("")


@pytest.mark.parametrize("rationale", [None, "", " \n"])
def test_no_rationale_no_hint(rationale):
    for policy in (RationaleDriven(), StateReset(Renderer()), StateReset(Renderer(), "paper")):
        assert policy.hint(query(rationale=rationale), [], 0) is None


@pytest.mark.parametrize(
    ("strategy", "template", "says"),
    [
        ("answer_driven", "{question} and nothing", "{answer}"),
        ("answer_driven", "The answer is {answer}", "{question}"),
        ("answer_driven", "{question} {answer} {rationale}", "{rationale}"),
        ("rationale_driven", "{question}", "{rationale}"),
        ("interactive", "{question} {feedback}", "{attempt}"),
        ("interactive", "{question} {attempt}", "{feedback}"),
        ("interactive", "{question} {attempt} {feedback} {rationale}", "{rationale}"),
    ],
)
def test_a_template_without_its_fields_is_refused(strategy, template, says):
    with pytest.raises(GsiError, match=r"guidance\.template: .*" + re.escape(says)):
        config(strategy=strategy, guidance={"template": template}, teacher={"url": "http://x/v1", "model": "m"})
    classes = {
        "answer_driven": AnswerDriven,
        "rationale_driven": RationaleDriven,
        "interactive": functools.partial(Interactive, Teacher("fine")),
    }
    with pytest.raises(GsiError, match=r"guidance\.template: .*" + re.escape(says)):
        classes[strategy](template=template)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["prompt.template=Answer"], "prompt.template: 'Answer' lacks {question}; use auto, plain, chat or a text"),
        (
            ["strategy=answer_driven", "guidance.template='\"hi\"'"],
            "guidance.template: '\"hi\"' lacks {question}, which `answer_driven` needs",
        ),
        (["strategy=ladder", "guidance.templates={cue: hi}"], "guidance.templates.cue: 'hi' lacks {question}, which `cue` needs"),
        (
            ["strategy=ladder", "guidance.templates={answer: '{question} {answer} {rationale}'}"],
            "guidance.templates.answer: `answer_driven` has nothing to put in {rationale}; it knows {question}, {answer}",
        ),
    ],
)
def test_a_plan_refuses_a_template_that_a_run_would_refuse(tmp_path, capsys, changes, says):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(scripted.config(tmp_path / "run")))
    assert main(["run", str(tmp_path / "c.yaml"), "--dry-run", *changes]) == 2
    assert says in capsys.readouterr().err


def test_only_a_template_that_is_read_must_fit():
    config(strategy="state_reset", guidance={"template": "of another guidance"})
    config(strategy="ladder", guidance={"rungs": ["short", "answer"], "templates": {"cue": "of a rung that is left out"}})


def test_own_wording_is_used():
    c = config(strategy="answer_driven", guidance={"template": "{answer}! {question} \\frac{1}{2} {}"})
    assert guidance.build(c, Renderer()).hint(query(), [], 0).question == f"2! {query().question} \\frac{{1}}{{2}} {{}}"


def test_guidance_is_built_from_the_config():
    renderer, teacher = Renderer(), Teacher("x")
    assert guidance.build(config(), renderer) is None
    assert guidance.build(config(strategy="brute_force"), renderer) is None
    assert guidance.build(config(strategy="answer_driven"), renderer) == AnswerDriven()
    assert guidance.build(config(strategy="rationale_driven"), renderer) == RationaleDriven()
    assert guidance.build(config(strategy="state_reset"), renderer) == StateReset(renderer, "steps")
    assert guidance.build(config(strategy="state_reset", guidance={"mode": "paper"}), renderer) == StateReset(renderer, "paper")
    c = config(strategy="interactive", teacher={"url": "http://x/v1", "model": "m"})
    assert guidance.build(c, renderer, teacher) == Interactive(teacher)
    with pytest.raises(GsiError, match="teacher"):
        guidance.build(c, renderer)


# ------------------------------------------------------------------------------------------------------- interactive


class Teacher:
    def __init__(self, text):
        self.text, self.asked = text, []

    def ask(self, messages):
        self.asked.append("\n".join(m["content"] for m in messages))
        return Reply(self.text, 10, 5, "t")


def test_the_teacher_sees_question_attempt_and_answer_but_never_the_rationale():
    teacher = Teacher("  look at the second step ")
    hint = Interactive(teacher).hint(query(rationale="SECRET", answer="GOLD"), [rollout(0, "wrong", "my {answer} attempt")], 0)
    (asked,) = teacher.asked
    for part in (query().question, "my {answer} attempt", "GOLD"):
        assert part in asked
    assert "SECRET" not in asked
    assert hint.label == "interactive"
    for part in (query().question, "my {answer} attempt", "look at the second step"):
        assert part in hint.question
    assert not re.search("SECRET|GOLD", hint.question)
    assert hint.given == Text("")


def test_only_wrong_attempts_are_shown_the_most_recent_first():
    statuses = [("wrong", "w0"), ("correct", "c"), ("wrong", "w1"), ("error", "e"), ("wrong", "w2"), ("wrong", "w1"), ("no_answer", "n")]
    attempts = [rollout(i, s, f"<{text}>") for i, (s, text) in enumerate(statuses)]
    teacher = Teacher("hm")
    for index in range(4):
        assert Interactive(teacher).hint(query(), attempts, index) is not None
    assert [re.search(r"<(\w+)>", a)[1] for a in teacher.asked] == ["w1", "w2", "w0", "w1"]


@pytest.mark.parametrize("statuses", [[], ["correct"] * 3, ["error", "timeout", "no_answer", "truncated", "too_long"]])
def test_without_a_wrong_attempt_the_teacher_is_not_asked(statuses):
    teacher = Teacher("hm")
    assert Interactive(teacher).hint(query(), [rollout(i, s, "x") for i, s in enumerate(statuses)], 0) is None
    assert teacher.asked == []


def test_a_teacher_that_says_nothing_gives_no_hint():
    assert Interactive(Teacher(" \n")).hint(query(), [rollout(0, "wrong", "x")], 0) is None


def test_a_long_attempt_is_cut_in_the_middle():
    teacher = Teacher("hm")
    hint = Interactive(teacher).hint(query(), [rollout(0, "wrong", "START" + "x" * 100_000 + "END")], 0)
    for text in (teacher.asked[0], hint.question):
        assert len(text) < ATTEMPT_CHARS + 1000
        assert "START" in text
        assert "xEND" in text


@given(st.text(), st.integers(10, 60))
def test_shorten_keeps_to_its_limit(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text or len(text) > limit


# ------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("rationale", "steps"),
    [
        (CHAIN, ["e 3 + 4 = 7 ;", " f 7 - 5 = 2 ;", " # 2"]),
        (GSM, ["He has 5 x 8 = 40 pencils.\n", "He gives away 40 / 4 = 10.\n\n", "So he keeps 40 - 10 = 30.\n", "The answer is 30"]),
        (MATH, [MATH[:29], MATH[29:62], MATH[62:105], " The answer is 1018"]),
        ("x = 1\n  y = 2\n", ["x = 1\n", "  y = 2\n"]),
        ("\n\none line. Two sentences.\n \n", ["\n\none line.", " Two sentences.\n \n"]),
        ("a = 1 ; ", ["a = 1 ; "]),
        ("no border at 3.5 or Dr. Who", ["no border at 3.5 or Dr. Who"]),
        ("So x = 5. Then (y.) Hence!  Done", ["So x = 5.", " Then (y.)", " Hence!", "  Done"]),
        ("", [""]),
    ],
)
def test_split_steps(rationale, steps):
    assert split_steps(rationale) == steps


@given(st.text(alphabet="ab1.;= \n\r\t$!", max_size=80) | st.text())
def test_steps_join_to_the_rationale(text):
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(s.strip() for s in steps) or len(steps) == 1
    assert not any(s.endswith(" ") for s in steps[:-1])


@pytest.mark.parametrize(
    ("steps", "answer", "index"),
    [
        (split_steps(CHAIN), "2", 1),
        (split_steps(CHAIN), "7", 0),
        (split_steps(GSM), "30", 2),
        (split_steps(GSM), "30.0", 2),
        (split_steps(MATH), "1018", 2),
        (split_steps(MATH), r"1,\!018", 2),
        (["a = 1,000.\n", "b = 5"], "1000", 0),
        (["a = 10.\n", "b = 5.0\n", "# 5"], "5", 1),
        (["a = 50\n", "b = 5.5\n", "c = 0.5\n", "The answer is $5"], "5", 3),
        (["it costs 5 dollars\n", "so = $5"], "5", 1),  # a number that is given is no result
        (["v = 1 + 6 = 7 ;", " u = 7 - 6 = 1 ;"], "1", 1),  # nor is an operand
        (["x = -5\n", "|x| = 5\n"], "5", 1),
        (["x = 5\n", "-x = -5\n"], "-5", 1),
        (["7 - 5 = 2\n", "x = −5"], "-5", 1),
        ([r"p = \dfrac{1}{2}", " so p = 0.5"], "1/2", 0),
        (["p = 3/4\n", "half is 0.50"], r"\frac{1}{2}", 1),
        (["first\n", r"so \boxed{ -x + 118 }", "The answer is -x+118"], "-x + 118", 1),
        (["A = 2x, so a train E leaves\n", "Then E = 3\n", "The answer is (E)."], "E", 2),
        (["a = 5 - x\n", r"so = 5\pi", "\n5 = 5\n"], "5", 2),
        ([r"a = 42^\circ.", " b = 42"], "42", 0),
        ([r"a = 3^2.", " b = 3"], "3", 1),
        (["options = [5, 6]\n", "r = 5"], "5", 1),
        (["x = 60 km\n", "The answer is E"], "60 km", 0),
        (["x = 60.\n", "The answer is E"], "60 minutes", 0),
        (["a\n", "it is true\n"], "True", 1),
        (["x =\n", "5"], "5", 1),
        (["he keeps 30 of them\n", "so, 30"], "30", 0),  # never a result: the first mention
        (["it fell by 5\n", "b"], "-5", 0),
        (["A b\n", "c"], "A", 1),  # but not of a letter
        (["a\n", "so $\\boxed{x+1}$\n", "The answer is 1+x"], "y", 1),  # not found as text: the box
        (["a", "b", "c"], "5", 2),
        (["only"], "5", 0),
        (["a", "b"], "", 1),
        (["a", "b"], "1/0", 1),
    ],
)
def test_first_statement(steps, answer, index):
    assert first_statement(steps, answer) == index


@given(st.lists(st.text(), min_size=1), st.text())
def test_first_statement_is_an_index(steps, answer):
    assert 0 <= first_statement(steps, answer) < len(steps)


# ------------------------------------------------------------------------------------------------------- state reset


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level BPE that knows ASCII words only: every other character is several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator([GSM, MATH, CHAIN, "Question: {question}\nAnswer:\n"] * 3, trainer)
    return wrap(t)


@pytest.fixture(scope="module")
def metaspace():
    """As in Llama 2: a space before any text, dropped again at the start of what is decoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator([GSM, MATH, CHAIN] * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"]))
    return wrap(t)


def wrap(tokenizer):
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.fixture(params=["none", "byte_level", "metaspace"])
def renderer(request):
    return Renderer() if request.param == "none" else Renderer(request.getfixturevalue(request.param))


def openings(policy, q, n):
    hints = [policy.hint(q, [], i) for i in range(n)]
    assert all(h is None or h.question is None for h in hints)
    return [h and h.given.text for h in hints]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (query(), ["e 3 + 4 = 7 ;"] * 2),
        (query(GSM, "30", "gsm8k"), [GSM[: GSM.index("He gives")], GSM[: GSM.index("So")], GSM[: GSM.index("He gives")]]),
        (query(MATH, "1018", "math"), [MATH[: MATH.index("  Thus")], MATH[: MATH.index(" Hence")], MATH[: MATH.index("  Thus")]]),
        (query(CHAIN, "7"), [None]),  # stated in the first step
        (query("Half of it.\nx = 60.\nThe answer is E", "E", "aqua", options=("1", "2", "3", "4", "60 km")), ["Half of it.\n"] * 2),
        (query("= 5", "5"), [None]),
    ],
    ids=["chain", "gsm8k", "math", "first-step", "choice", "one-step"],
)
def test_steps_are_given_before_the_answer(renderer, q, expected):
    assert openings(StateReset(renderer), q, len(expected)) == expected


def test_paper_mode_gives_lines_on_gsm8k(renderer):
    lines = GSM.splitlines(keepends=True)
    expected = ["".join(lines[:n]) for n in (1, 2, 3, 4, 1)]
    assert openings(StateReset(renderer, "paper"), query(GSM, "30", "gsm8k"), 5) == expected
    assert openings(StateReset(renderer, "paper"), query("one line", "30", "gsm8k"), 1) == [None]


def test_paper_mode_gives_shares_of_the_tokens_elsewhere(byte_level):
    r = Renderer(byte_level)
    q = query(MATH, "1018", "math")
    ids = r.continuation(r.prompt(q), MATH).ids
    hints = [StateReset(r, "paper").hint(q, [], i) for i in range(6)]
    for hint, share in zip(hints, (0.2, 0.4, 0.6, 0.8, 0.8, 0.2), strict=True):
        n = len(hint.given.ids)
        assert hint.given.ids == ids[:n]
        assert r.decode(hint.given.ids) == hint.given.text
        assert MATH.startswith(hint.given.text)
        assert int(share * len(ids)) - 1 <= n <= int(share * len(ids))
        assert hint.label == f"state_reset:{round(n / len(ids), 2):g}"


def test_without_a_tokenizer_shares_are_of_words_and_sizes_of_characters():
    hint = StateReset(Renderer(), "paper").hint(query("aa bb cc dd ee", "9", "math"), [], 1)
    assert hint.given == Text("aa bb")
    assert hint.label == "state_reset:0.36"


def test_the_label_gives_the_share_of_the_tokens(byte_level):
    r = Renderer(byte_level)
    share = len(r.encode("e 3 + 4 = 7 ;")) / len(r.encode(CHAIN))
    hint = StateReset(r).hint(query(), [], 0)
    assert hint.label == f"state_reset:{round(share, 2):g}"
    assert hint.given.ids is None  # cut as text: the sampler makes the ids
    assert StateReset(Renderer()).hint(query(), [], 0).label == f"state_reset:{round(13 / len(CHAIN), 2):g}"


def test_a_token_cut_never_splits_a_character(byte_level):
    r = Renderer(byte_level)
    text = "∑é漢🎲∫" * 4
    assert len(r.encode(text)) > 2 * len(text)
    for mode in ("paper", "steps"):
        for i in range(5):
            hint = StateReset(r, mode).hint(query(text, "9", "math"), [], i)
            assert text.startswith(hint.given.text)
            assert r.decode(hint.given.ids) == hint.given.text


def test_a_tokenizer_that_loses_characters_does_not_spoil_the_cut(metaspace):
    text = "漢 aa bb cc dd"
    r = Renderer(metaspace)
    assert r.decode(r.encode(text)) != text
    assert openings(StateReset(r, "paper"), query(text, "9", "math"), 4) == ["漢", "漢 aa", "漢 aa bb", "漢 aa bb cc"]


def test_one_step_is_cut_before_the_value(renderer):
    text = "multiply six by seven and you find that x = 42 which is what was asked for here"
    for opening in openings(StateReset(renderer), query(text, "42"), 8):
        assert opening
        assert text.startswith(opening)
        assert not re.search("=|42", opening)


PIECES = ["x = 5", " ; ", ". ", "\n", "# 5", "the answer is ", "ab ", "5"]
RATIONALES = st.text(alphabet="abz0125.,;=#+- \n\t$\\{}é漢", max_size=60) | st.lists(st.sampled_from(PIECES)).map("".join)


@settings(deadline=None)
@example("# 55x = 5", 1)
@example("# 5+3 = 5", 1)
@given(RATIONALES, st.integers(0, 9))
def test_an_opening_is_a_proper_prefix_that_ends_in_no_space(byte_level, metaspace, text, index):
    for tokenizer in (None, byte_level, metaspace):
        r = Renderer(tokenizer)
        for mode, task in (("steps", "own"), ("paper", "gsm8k"), ("paper", "own")):
            hint = StateReset(r, mode).hint(query(text, "5", task), [], index)
            if hint is None:
                continue
            assert hint.given.text
            assert text.startswith(hint.given.text)
            assert len(hint.given.text) < len(text)
            assert not hint.given.text.endswith(" ")
            assert 0 < float(hint.label.removeprefix("state_reset:")) < 1
            if mode == "steps":
                assert not re.search(r"(=|#|answer is) ?5(?![\d.,+-])", hint.given.text)


def test_hints_leave_the_plain_prompt_alone(byte_level):
    r, q = Renderer(byte_level), query(rationale=GSM, answer="30")
    before = r.prompt(q)
    for policy in (AnswerDriven(), RationaleDriven(), Interactive(Teacher("FEEDBACK")), StateReset(r), StateReset(r, "paper")):
        assert policy.hint(q, [rollout(0, "wrong", "x")], 0) is not None
    assert r.prompt(q) == before
    assert q == query(rationale=GSM, answer="30")


# --------------------------------------------------------------------------------------------------------- real data


@pytest.mark.parametrize(("name", "task", "enough"), [("gsm8k_cot", "gsm8k", 0.95), ("math_cot", "math", 0.8), ("aqua_cot", "aqua", 0.85)])
def test_real_rationales_can_be_cut_before_their_answer(data_dir, byte_level, name, task, enough):
    with gzip.open(data_dir / "train" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = random.Random(0).sample([json.loads(line) for line in f], 150)
    policy, cuttable = StateReset(Renderer(byte_level)), 0
    for row in rows:
        text, options = row["rationale"], tuple(row.get("options", ()))
        assert "".join(split_steps(text)) == text
        q = Query(row["id"], task, row["question"], row["answer"], text, options=options or None)
        given = openings(policy, q, 8)
        cuttable += given[0] is not None
        for opening in filter(None, given):
            assert text.startswith(opening)
            assert not opening.endswith(" ")
            # the box and the closing sentence state the answer in nearly every row of these files
            assert not re.search(r"\\boxed|The answer is", opening), row["id"]
            if row["answer"].isdigit():
                assert not re.search(rf"= ?\$?{row['answer']}(?![\d.,/]*\d)(?!\s*[-+*/x^\\])", opening), row["id"]
    assert cuttable >= enough * len(rows), f"{cuttable} of {len(rows)} rows can be cut"

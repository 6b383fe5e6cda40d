"""The gate on guided samples and the curation around it: pure rules, scripted runs, and a real tiny model that scores."""

import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsi import load_config, run
from gsi.config import ConfigError
from gsi.config.training import Gate, Upweight
from gsi.distinct import steps, text
from gsi.gate import judge, upweight
from gsi.ledger import Ledger
from gsi.reliance import reliance
from gsi.types import Query, Rollout
from tests import models
from tests.scripted import HERE, config

ROW = Rollout(
    "q",
    "t",
    1,
    0,
    0,
    "s",
    "answer_driven",
    "p",
    "",
    "r",
    "3 + 4 = 7 so 7",
    None,
    None,
    1,
    0,
    1,
    "stop",
    1,
    "m",
    "correct",
    True,
    None,
    "7",
    "",
    "now",
)
QUERIES = {f"q{i}": Query(f"q{i}", "t", "How much?", "7", rationale="3 + 4 = 7") for i in range(3)}


@st.composite
def guided(draw):
    keys = draw(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 6)), max_size=20))
    rows, scores = [], {}
    for q, iteration, attempt in keys:
        helped = draw(st.booleans())
        body = draw(st.sampled_from(["3 + 4 = 7", "The answer is 7. 3 + 4 = 7", "As the hint says, 3 + 4 = 7"]))
        steps_ok = draw(st.sampled_from([None, True, False]))
        rows.append(
            replace(
                ROW,
                query_id=f"q{q}",
                iteration=iteration,
                attempt=attempt,
                guidance="answer_driven" if helped else None,
                completion=body,
                response=body,
                steps_ok=steps_ok,
            )
        )
        if draw(st.booleans()) or not helped:
            scores[f"q{q}", iteration, attempt] = (draw(st.floats(-5, 0.1)) if helped else None, draw(st.floats(-5, 0)))
    return rows, scores


GATES = st.builds(
    Gate, reliance=st.sampled_from(["none", "filter", "choose", "weight"]), best=st.integers(1, 3), threshold=st.sampled_from([-0.5, -2.0]),
    leaks=st.lists(st.sampled_from(["mention", "early_answer", "copy", "steps"]), unique=True).map(tuple),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(guided(), GATES, st.randoms())
def test_the_gate_judges_guided_rows_only_in_any_order(made, gate, rng):
    rows, scores = made
    found = judge(rows, QUERIES, scores, gate)
    shuffled = rows[:]
    rng.shuffle(shuffled)
    assert judge(shuffled, QUERIES, scores, gate) == found
    for r in rows:
        reason, weight = found.reject(r), found.weigh(r)
        if not r.guided:
            assert (reason, weight) == (None, 1.0)
        if reason == "reliance":
            assert scores[r.query_id, r.iteration, r.attempt][0] < gate.threshold
        assert (reason == "leak_mention") <= ("hint says" in r.completion)
        assert (reason == "steps_wrong") <= (r.steps_ok is False)
        assert 0 < weight <= 1
        assert weight == 1 or gate.reliance == "weight"
    if gate.reliance == "choose":
        for q in QUERIES:
            for iteration in range(2):
                mine = [r for r in rows if r.guided and (r.query_id, r.iteration) == (q, iteration)]
                kept = [scores[q, iteration, r.attempt][0] for r in mine if found.reject(r) is None]
                lost = [scores[q, iteration, r.attempt][0] for r in mine if found.reject(r) == "not_best"]
                assert len(kept) <= gate.best
                assert not lost or min(kept) >= max(lost)


@settings(max_examples=100, deadline=None)
@given(guided(), st.sampled_from(["pass_rate", "likelihood"]), st.floats(0.1, 3), st.floats(1, 8), st.randoms())
def test_unlikely_and_correct_counts_more_within_bounds(made, by, power, most, rng):
    rows, scores = made
    chosen = Upweight(by=by, power=power, most=most)
    weights = upweight(rows, scores, chosen, "answer")
    rng.shuffle(rows)
    assert upweight(rows, scores, chosen, "answer") == weights
    assert all(1 / most * 0.999 <= w <= most * 1.001 for w in weights.values())
    if by == "likelihood":
        for a in weights:
            for b in weights:
                if a[:2] == b[:2] and scores[a][1] < scores[b][1]:
                    assert weights[a] >= weights[b]


def test_pass_rate_weights_follow_the_rate_of_plain_attempts():
    rows = [
        replace(ROW, query_id="q0", attempt=i, guidance=None, correct=i == 0, status="correct" if i == 0 else "wrong") for i in range(8)
    ]
    rows += [replace(ROW, query_id="q1", attempt=i, guidance=None) for i in range(8)]
    weights = upweight(rows, {}, Upweight(by="pass_rate", power=0.5), "answer")
    assert weights["q0", 0, 0] == pytest.approx((1.5 / 9) ** -0.5)
    assert weights["q1", 0, 3] == pytest.approx((8.5 / 9) ** -0.5)


def test_reliance_of_an_opening_is_what_the_opening_would_have_cost():
    assert reliance([-1.0, -2.0, -0.5, -0.5], None, 2) == (-0.75, -1.0)
    assert reliance([-1.0, -1.0], [-0.25, -0.25], 0) == (-0.75, -1.0), "a hint in the question: the mean difference, as in HiLL"
    assert reliance([-4.0, -1.0, -1.0], [-0.5, -0.5], 1) == pytest.approx((-5 / 3, -2.0)), "both kinds of help at once"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("She has 48/2 = 24 clips.", "In May: 48 / 2 = 24", True), ("1,000 + 5.0 = 1005", "1000+5=1,005", True), ("$3 x 4 = 12$", r"3 \times 4 = 12", True),
        ("3 + 4 = 7 ; 7 - 5 = 2", "7 - 5 = 2 ; 3 + 4 = 7", False), ("3 + 4 = 7", "4 + 3 = 7", False), ("48 clips / 2 = 24 clips", "48 / 2 = 24", True),
        ("3 * 4 = <<3*4=12>>12", "3*4=12", True), ("It is even.", "it is  even", True), ("It is even.", "It is odd.", False), (r"\frac{6}{2} = 3", "(6)/(2) = 3", True),
        ("a 3 + 4 = 7 ; # 7", "e 3 + 4 = 7 ; # 7", True),
    ],
)  # fmt: skip
def test_rationales_are_the_same_when_their_equations_are(a, b, same):
    assert (steps(a) == steps(b)) is same
    assert text(" a  b ") == text("a b")


def score(prompt, completion, model):
    """Every token of a number is doubtful, all else is sure."""
    return [-1.0 if chr(min(i, 255)).isdigit() else -0.1 for i in completion.ids]


def world(folder, **changes):
    c = config(folder, strategy="state_reset", accept="steps", **changes)
    c["engine"] = c["engine"] | {"score": f"{__file__}:score"}
    return c


def reasons(folder, n):
    return pq.read_table(folder / f"iter_{n}" / "dropped.parquet")["reason"].to_pylist()


@pytest.mark.parametrize("mode", ["filter", "choose", "weight"])
def test_runs_with_a_gate(tmp_path, mode, check_folder):
    folder = tmp_path / "run"
    lines = run(
        world(folder, curate={"gate": {"reliance": mode, "threshold": -0.2, "leaks": ["mention", "early_answer", "steps"]}})
    ).metrics
    rows = pq.read_table(folder / "iter_2" / "train.parquet").to_pylist()
    ledger = Ledger(folder / "ledger.sqlite", read_only=True)
    scores = ledger.scores()
    accepted = {(r.query_id, r.iteration, r.attempt): r for r in ledger.rows() if r.guided and r.accepted("steps")}
    ledger.close()
    assert set(scores) == set(accepted), "scored is what is guided and accepted"
    for key, (value, _) in scores.items():  # by hand: the given tokens' log-probability over all tokens
        r = accepted[key]
        assert value == pytest.approx(sum(score(None, r_ids(r), None)[: r.given_tokens]) / len(r.response_ids))
    kept = [(r["query_id"], r["iteration"], r["attempt"]) for r in rows if r["guidance"]]
    if mode == "filter":
        assert kept
        assert all(scores[k][0] >= -0.2 for k in kept)
        assert "reliance" in reasons(folder, 2)
        assert lines[2]["train/dropped/reliance"] > 0
    elif mode == "choose":
        assert len({k[0] for k in kept}) == len(kept)
        assert "not_best" in reasons(folder, 2)
    else:
        assert all(
            r["weight"] == pytest.approx(math.exp(scores[k][0] / 0.1), rel=1e-5)
            for r in rows
            if r["guidance"]
            for k in [(r["query_id"], r["iteration"], r["attempt"])]
        )
        assert all(r["weight"] == 1 for r in rows if not r["guidance"])
    assert lines[1]["score/tokens"] > 0, "what is read to score is counted"
    assert lines[1]["gate/scored"] == sum(k[1] == 0 for k in scores)
    assert check_folder(folder) == []


def long_winded(request, model):
    """Right with an opening only, and then every other time with an aside that is longer than training takes."""
    if not request.given.text:
        return "I do not know"
    return request.query.rationale[len(request.given.text) :] + " indeed" * (80 if request.attempt % 2 else 0)


@pytest.mark.parametrize("changes", [{}, {"upweight": {"by": "pass_rate", "power": 0.5}}], ids=["plain", "upweight"])
def test_the_best_is_chosen_among_what_is_short_enough(tmp_path, changes):
    folder, task = (
        tmp_path / "run",
        {"name": "chain", "args": {"seed": 1, "per_level": 2}, "check": f"{HERE.with_name('own_check.py')}:check"},
    )
    c = world(folder, tasks=[task], iterations=1, curate={"gate": {"reliance": "choose"}} | changes)
    c |= {"accept": "answer", "sample": {"k": 2, "wanted": 4, "max_extra": 6}, "evaluate": {"validation": 0}}
    c |= {"engine": c["engine"] | {"function": f"{__file__}:long_winded"}, "train": c["train"] | {"max_length": 500}}
    run(c)
    ledger = Ledger(folder / "ledger.sqlite", read_only=True)
    scores, accepted = ledger.scores(), [r for r in ledger.rows() if r.accepted("answer")]
    ledger.close()
    kept = {r["query_id"]: r for r in pq.read_table(folder / "iter_1" / "train.parquet").to_pylist()}
    assert set(kept) == {r.query_id for r in accepted}, "every query that was helped has its row"
    reliances = {q: [(scores[q, 0, r.attempt][0], r) for r in accepted if r.query_id == q] for q in kept}
    overall = [max(of, key=lambda pair: pair[0])[1] for of in reliances.values()]
    assert any("indeed" in r.response for r in overall), "the best of all is too long, since its opening is a small part of it"
    for q, row in kept.items():
        short = [value for value, r in reliances[q] if "indeed" not in r.response]
        assert scores[q, 0, row["attempt"]][0] == max(short)
        # two plain attempts at every query, none right; the gate's own weights are 1
        assert row["weight"] == pytest.approx((0.5 / 3) ** -0.5 if changes else 1.0)
    assert {"too_long", "not_best"} == set(reasons(folder, 1))


class r_ids:  # a completion's ids, for `score`
    def __init__(self, r):
        self.ids = r.response_ids


def test_scoring_goes_on_after_a_kill_and_is_not_paid_twice(tmp_path, monkeypatch):
    from gsi import reliance as module

    calm = run(world(tmp_path / "calm", curate={"gate": {"reliance": "filter"}})).metrics
    monkeypatch.setattr(module, "CHUNK", 3)
    calls, real = [0], Ledger.add_scores

    def dying(self, rows):
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        real(self, rows)

    monkeypatch.setattr(Ledger, "add_scores", dying)
    c = world(tmp_path / "run", curate={"gate": {"reliance": "filter"}})
    with pytest.raises(KeyboardInterrupt):
        run(c)
    again = run(c).metrics
    assert [x.get("score/tokens") for x in again] == [x.get("score/tokens") for x in calm]
    assert [x.get("train/rows") for x in again] == [x.get("train/rows") for x in calm]


def test_a_fork_that_adds_a_gate_scores_what_was_drawn_without_it(tmp_path):
    c = world(tmp_path / "run", keep_models="all")
    run(c)
    lines = run(c | {"curate": {"gate": {"reliance": "filter", "threshold": -0.2}}}, fork="gated").metrics
    assert lines[1]["train/dropped/reliance"] > 0


@pytest.mark.parametrize("data", ["replace", "accumulate"])
def test_all_of_curation_together(tmp_path, data, check_folder):
    folder = tmp_path / "run"
    train = {"kind": "scripted", "function": f"{HERE}:train", "data": data} | ({"replay": 0.5} if data == "replace" else {})
    curate = {
        "cap": 2, "floor": 2, "distinct": "steps", "upweight": {"by": "likelihood", "power": 1.0}, "gate": {"reliance": "weight", "leaks": ["mention", "copy", "steps"]},
    }  # fmt: skip
    run(world(folder, iterations=3, curate=curate, train=train))
    rows = pq.read_table(folder / "iter_3" / "train.parquet").to_pylist()
    own = [r for r in rows if r["iteration"] == 2 or data == "accumulate"]
    per_query = {q: [r for r in own if r["query_id"] == q] for q in {r["query_id"] for r in own}}
    assert all(len(of) == 2 for of in per_query.values()), "cap and floor"
    assert all(len({(r["iteration"], r["attempt"]) for r in of}) == len({steps(r["completion"]) for r in of}) for of in per_query.values())
    assert len({r["weight"] for r in rows}) > 1
    assert {r["iteration"] for r in rows} - {2}, "rows of earlier iterations too"
    assert {"duplicate"} <= set(reasons(folder, 3))
    assert check_folder(folder) == []


def test_a_real_model_scores_what_it_drew(tmp_path):
    """The engine's figures for an opening equal a plain forward pass over the same ids, and scoring shares the engine start."""
    import torch
    from transformers import AutoModelForCausalLM

    base = models.build(tmp_path / "model", context=256)
    c = config(
        tmp_path / "run",
        model=str(base),
        strategy="state_reset",
        iterations=1,
        engine={"kind": "transformers"},
        curate={"gate": {"reliance": "filter", "threshold": -9}},
    )
    c |= {"sample": {"k": 1, "wanted": 2, "max_extra": 3, "max_new_tokens": 8}, "tasks": [c["tasks"][0] | {"check": f"{HERE}:anything"}]}
    c |= {
        "evaluate": {"validation": 0, "perplexity_rows": 0},
        "train": {"kind": "scripted", "function": f"{HERE}:copy_model"},
        "keep_models": "all",
    }
    lines = run(c).metrics
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True)
    rows = [r for r in ledger.rows(0) if r.guided and r.accepted("answer")]
    scores = ledger.scores()
    ledger.close()
    assert rows
    model = AutoModelForCausalLM.from_pretrained(base)
    for r in rows[:4]:
        ids = torch.tensor([r.prompt_ids + r.response_ids])
        with torch.inference_mode():
            logp = torch.log_softmax(model(ids).logits[0].float(), -1)
        per = [float(logp[len(r.prompt_ids) + i - 1, t]) for i, t in enumerate(r.response_ids)]
        assert scores[r.query_id, 0, r.attempt][0] == pytest.approx(sum(per[: r.given_tokens]) / len(per), abs=1e-4)
        assert scores[r.query_id, 0, r.attempt][1] == pytest.approx(sum(per) / len(per), abs=1e-4)
    assert lines[-1]["score/tokens"] == sum(len(r.prompt_ids) + len(r.response_ids) for r in rows)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["engine={kind: vllm}", "curate.gate.reliance=filter"], "curate.gate.reliance: filter needs an engine that scores, and vllm does not; transformers does"),
        (["engine={kind: vllm}", "curate.upweight={by: likelihood}"], "curate.upweight.by: likelihood needs an engine that scores"),
        (["curate.gate.reliance=best"], "curate.gate.reliance"), (["curate.gate.leaks=[mentions]"], "mention"), (["curate.gate.treshold=-1"], "did you mean 'threshold'"),
        (["curate.gate.threshold=0.5"], "curate.gate.threshold"), (["curate.upweight={by: luck}"], "pass_rate"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(changes, says):
    with pytest.raises(ConfigError) as e:
        load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "t"}]}, changes)
    assert says in str(e.value)

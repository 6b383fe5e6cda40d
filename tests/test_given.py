"""`train.on_given`: what of a given opening is trained, to the token."""

import math

import models
import pyarrow.parquet as pq
import pytest
import scripted
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gsi
from gsi.engines.transformers import TransformersEngine
from gsi.given import choose, unmask
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.types import Completion, Example, GsiError, Text

QUIET = Reporter("quiet")


@given(st.lists(st.floats(0, 10), max_size=50), st.floats(0.01, 0.99))
def test_the_most_uncertain_are_chosen(entropies, share):
    mask = choose(entropies, share)
    assert len(mask) == len(entropies)
    assert sum(mask) == (max(1, math.ceil(share * len(entropies) - 1e-9)) if entropies else 0)
    chosen, rest = [[e for e, m in zip(entropies, mask, strict=True) if m == x] for x in (1, 0)]
    assert not chosen or not rest or min(chosen) >= max(rest)


def test_a_fifth_of_five_is_one_and_the_earlier_of_equals():
    assert choose([1.0, 2.0, 2.0, 0.0, 0.0], 0.2) == (0, 1, 0, 0, 0)
    assert choose([0.0] * 10, 0.2) == (1, 1, *[0] * 8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=6), st.floats(0.05, 0.95))
def test_only_given_tokens_change_and_repeated_rows_are_measured_once(sizes, share):
    """sizes: (prompt, given, own) tokens of every row."""
    rows, prompts = [], {}
    for i, (p, g, n) in enumerate(sizes):
        prompts[f"q{i}"] = p
        rows.append(Example("p", "c", tuple(range(p + g + n)), (0,) * (p + g) + (1,) * n, f"q{i}", 0, 0, "adaptive:0.5" if g else None))
    reference = Example("p", "c", (1, 2, 3), (0, 1, 1), "q0", 0, -1, source="reference")
    asked = []

    def measure(pairs):
        asked.extend(pairs)
        return [[float(i % 3) for i in completion.ids] for _, completion in pairs]

    changed, read = unmask([*rows, *rows, reference], prompts.__getitem__, share, measure)
    assert len(asked) == sum(g > 0 for _, g, _ in sizes)
    assert read == sum(p + g for p, g, _ in sizes if g)
    assert changed[: len(rows)] == changed[len(rows) : -1]
    assert changed[-1] == reference
    for (p, g, n), before, after in zip(sizes, rows, changed, strict=False):
        assert after.loss_mask[:p] == (0,) * p
        assert after.loss_mask[p : p + g] == choose([float(i % 3) for i in before.input_ids[p : p + g]], share)
        assert after.loss_mask[p + g :] == (1,) * n


def pretended(prompt, completion):
    """Entropy that only the place and the byte decide."""
    return [float((7 * token + 3 * (len(prompt) + i)) % 11) for i, token in enumerate(completion)]


def test_a_run_trains_the_uncertain_part_of_what_was_given(tmp_path):
    engine = {"kind": "scripted", "function": f"{scripted.HERE}:respond", "entropy": f"{__file__}:pretended"}
    train = scripted.config(tmp_path)["train"] | {"on_given": "entropy", "given_share": 0.3}
    result = gsi.run(scripted.config(tmp_path / "run", strategy="state_reset", engine=engine, train=train), reporter=QUIET)
    ledger = Ledger(result.path / "ledger.sqlite", read_only=True)
    rollouts = {(r.query_id, r.iteration, r.attempt): r for r in ledger.rows()}
    read = 0
    for row in pq.read_table(result.path / "iter_2" / "train.parquet").to_pylist():
        r = rollouts[row["query_id"], row["iteration"], row["attempt"]]
        begin = len(row["input_ids"]) - len(r.response_ids)
        assert row["loss_mask"][:begin] == [0] * begin
        assert row["loss_mask"][begin + r.given_tokens :] == [1] * (len(r.response_ids) - r.given_tokens)
        given_ids = row["input_ids"][begin : begin + r.given_tokens]
        assert tuple(row["loss_mask"][begin : begin + r.given_tokens]) == choose(pretended(row["input_ids"][:begin], given_ids), 0.3)
        read += begin + r.given_tokens if r.given_tokens else 0
    line = result.metrics[2]
    assert read == line["given/scored_tokens"] > 0
    ledger.close()


def test_an_engine_that_cannot_measure_it_is_refused(tmp_path):
    train = scripted.config(tmp_path)["train"] | {"on_given": "entropy"}
    with pytest.raises(GsiError, match=r"cannot measure.*train\.on_given: entropy.*transformers"):
        gsi.run(scripted.config(tmp_path / "run", train=train), reporter=QUIET)
    assert not (tmp_path / "run" / "iter_1").exists()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_entropies_are_those_of_the_models_own_distributions(tmp_path, family):
    from transformers import AutoModelForCausalLM

    path = models.build(tmp_path / "m", family)
    engine = TransformersEngine(str(path), models.tokenizer(), device="cpu", dtype="float32", max_rows=4)
    rows = [((5, 6, 7), (8, 9)), ((3,), (10, 11, 12, 13, 14)), ((20, 21), (0,)), ((4, 4, 4, 4), (4,) * 6), ((9, 8), (7, 6, 5))]
    found = engine.entropies([(Text("", p), Completion("", c, "stop", len(c))) for p, c in rows])
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    for (prompt, completion), values in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        assert values == pytest.approx(torch.distributions.Categorical(logits=logits).entropy().tolist(), abs=1e-4)
    engine.close()

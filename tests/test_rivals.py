"""TRL's GRPO and SDFT on the lab's questions: what is trained, what it costs, where it ends."""

from collections import Counter

import models
import pytest
import torch

from gsi.lab import dag, rivals
from gsi.metrics import flops

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(900)]


@pytest.fixture
def pool():
    return dag.queries(7, 2, [2, 3])


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "BATCH", 16)
    monkeypatch.setattr(rivals, "LONGEST", 12)
    return str(models.build(tmp_path / "base", std=0.1, context=512))


@pytest.mark.parametrize("rival", list(rivals.LEARNING_RATE))
def test_a_rival_spends_its_budget_and_no_more_than_a_step_beyond(base, pool, rival):
    found = rivals.run(rival, base, pool, pool[:2], 1.0, 3, 1e-3, 1.0)
    assert found["steps"] == 1
    assert found["flops"] > 1.0
    twice = rivals.run(rival, base, pool, pool[:2], found["flops"] * 1.01, 3, 1e-3, 1.0)
    assert twice["steps"] == 2
    assert found["flops"] < twice["flops"]
    assert rival == "grpo_hint" or found["trained"] == found["tokens"]
    assert set(found["before"]) == {2}


def test_it_draws_where_the_live_weights_are(base, monkeypatch):
    """They are trained on the CPU, whatever else the machine has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    engine = rivals.Drawing(base, models.tokenizer(), 1).engine
    assert (engine.device.type, engine.model.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize("group", [4, 8])
def test_a_group_without_a_right_response_is_drawn_again_behind_an_opening(base, pool, monkeypatch, group):
    drawn = []
    draw = rivals.Drawing.draw
    monkeypatch.setattr(rivals.Drawing, "draw", lambda self, model, items, t: drawn.append((items, t)) or draw(self, model, items, t))
    found = rivals.run("grpo_hint", base, pool, pool[:1], 1.0, 3, 1e-3, 1.0, group)
    (plain, _), (again, _) = [d for d in drawn if d[1] == 1.0]
    assert len(plain) == len(again) == 16  # a model that knows nothing is never right
    assert set(Counter(query.id for query, _, _ in plain).values()) == {group}
    assert not any(given.text for _, _, given in plain)
    assert all(given.text == rivals.opening(query) and query.rationale.startswith(given.text) for query, _, given in again)
    assert found["trained"] < found["tokens"]  # what was drawn first is paid and not trained
    assert found["flops"] >= flops(1, 0, found["tokens"], found["trained"])

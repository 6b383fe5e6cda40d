"""The lab's trainer ends where TRL's ends."""

import models
import pytest
from test_training import NOISE, difference, job, rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from gsi.lab import trainer
from gsi.types import GsiError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.build(tmp_path_factory.mktemp("model"), std=0.1)


@pytest.mark.parametrize(
    ("weights", "micro", "warmup"), [((1.0,), 5, 0.0), ((1.0, 0.2, 3.0), 2, 0.3)], ids=["plain", "weights, masks, accumulation, warm-up"]
)
def test_it_trains_to_the_weights_of_the_real_one(tmp_path, model, weights, micro, warmup):
    from gsi.train import sft

    changes = {"batch_size": 5, "micro_batch_size": micro, "epochs": 2, "learning_rate": 3e-3, "warmup": warmup}
    table = rows(13, weights)
    real, ours = (job(tmp_path / name, table, model, **changes) for name in ("real", "ours"))
    expected, figures = sft.train(real), trainer.train(ours)
    assert figures["steps"] == expected["steps"] == 6
    assert figures["tokens"] == expected["tokens"]
    assert figures["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    base, a, b = (AutoModelForCausalLM.from_pretrained(p) for p in (model, real.output, ours.output))
    assert difference(a, b) < NOISE < difference(base, a) / 10
    assert len(AutoTokenizer.from_pretrained(ours.output)) == len(AutoTokenizer.from_pretrained(model))


@pytest.mark.parametrize(("key", "value"), [("method", "lora"), ("weight_decay", 0.01)])
def test_what_only_the_real_one_does_is_refused(tmp_path, model, key, value):
    with pytest.raises(GsiError, match=rf"train\.{key}.*train\.kind=trl"):
        trainer.train(job(tmp_path, rows(4), model, **{key: value}))

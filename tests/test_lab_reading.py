"""Whether a base reads hints is told from what it answers behind them."""

import random
from dataclasses import replace

import pytest
import torch

from gsi.lab import base, dag, greedy, reading
from gsi.lab.dag_check import parse
from gsi.types import GsiError, Query, Verdict


class Copier:
    """Solves a question behind a reference, and no other."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate(self, prompts, **options):
        texts = self.tokenizer.batch_decode(prompts)
        solved = []
        for text in texts:
            own = "# 1"
            if text.startswith("solution "):
                question = text[text.index(" # ") + 3 :].partition(" ")[2]
                own = dag.own_words(parse(Query("q", "dag", question, "")), random.Random(0))
            solved.append(self.tokenizer(own)["input_ids"])
        longest = max(map(len, solved))
        tails = torch.tensor([ids + [self.tokenizer.pad_token_id] * (longest - len(ids)) for ids in solved])
        return torch.cat([prompts, tails], dim=1)


def test_what_is_solved_behind_each_hint():
    tokenizer = base._tokenizer(base.RECIPES["dag"])
    found = reading.reading(Copier(tokenizer), tokenizer, "dag", 1, 3, taught=True)
    assert list(found) == list(range(1, 9))
    for right in found.values():
        assert set(right) == {"plain", *dag.HINTS}
        assert right["rationale_driven"] == [True] * 3
        assert not any(sum(r) for kind, r in right.items() if kind != "rationale_driven")


def test_a_base_that_was_not_taught_is_asked_plainly():
    tokenizer = base._tokenizer(base.RECIPES["dag"])
    for right in reading.reading(Copier(tokenizer), tokenizer, "dag", 1, 3, taught=False).values():
        assert right == {"plain": [False] * 3}


def test_a_chat_model_is_asked_through_its_template():
    tokenizer = base._tokenizer(replace(base.RECIPES["dag"], architecture="qwen3"))
    seen = []

    class Listener(Copier):
        def generate(self, prompts, **options):
            seen.extend(tokenizer.batch_decode(prompts))
            return super().generate(prompts, **options)

    reading.reading(Listener(tokenizer), tokenizer, "dag", 1, 1, taught=False)
    assert len(seen) == 8
    assert all(text.startswith("<user> ") and text.endswith(" <model>") for text in seen)


def test_right_steps_to_a_wrong_answer_are_not_right():
    tokenizer = base._tokenizer(base.RECIPES["dag"])
    queries = dag.queries(1, 2, [1])
    for verdict in (Verdict("wrong", steps_ok=True), Verdict("correct", steps_ok=False)):
        assert greedy.right(Copier(tokenizer), tokenizer, queries, lambda text, query, verdict=verdict: verdict, 8) == 0
    assert greedy.right(Copier(tokenizer), tokenizer, queries, lambda text, query: Verdict("correct", steps_ok=True), 8) == 2


def test_a_model_without_a_task_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["reading", "lab:untrained"])
    with pytest.raises(GsiError, match="lab:untrained knows no task"):
        reading.main()

"""Greedy answers of a lab model by transformers' own `generate`: nothing of the engines takes part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from gsi.types import Query, Verdict


def verdicts(
    model: Any,
    tokenizer: Any,
    queries: Sequence[Query],
    check: Callable[[str, Query], Verdict],
    max_new_tokens: int,
    prompts: Sequence[str],
) -> list[bool]:
    """Which of the queries get an answer with every step right, each behind its prompt."""
    import torch

    batches: dict[int, list[tuple[list[int], int]]] = defaultdict(list)  # prompts of one length need no padding
    for i, prompt in enumerate(prompts):
        ids = tokenizer(prompt)["input_ids"]
        batches[len(ids)].append((ids, i))
    found = [False] * len(queries)
    for length, batch in batches.items():
        inputs = torch.tensor([ids for ids, _ in batch])
        with torch.inference_mode():
            out = model.generate(inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=max_new_tokens)
        texts = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
        for text, (_, i) in zip(texts, batch, strict=True):
            verdict = check(text, queries[i])
            found[i] = verdict.correct and verdict.steps_ok is True
    return found


def right(model: Any, tokenizer: Any, queries: Sequence[Query], check: Callable[[str, Query], Verdict], max_new_tokens: int) -> int:
    """How many of the queries get an answer with every step right."""
    return sum(verdicts(model, tokenizer, queries, check, max_new_tokens, [query.question for query in queries]))

"""Greedy answers of a lab model by transformers' own `generate`: nothing of the engines takes part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from gsi.types import Query, Verdict


def right(model: Any, tokenizer: Any, queries: Sequence[Query], check: Callable[[str, Query], Verdict], max_new_tokens: int) -> int:
    """How many of the queries get an answer with every step right."""
    import torch

    batches: dict[int, list[tuple[list[int], Query]]] = defaultdict(list)  # prompts of one length need no padding
    for query in queries:
        ids = tokenizer(query.question)["input_ids"]
        batches[len(ids)].append((ids, query))
    count = 0
    for length, batch in batches.items():
        prompts = torch.tensor([ids for ids, _ in batch])
        with torch.inference_mode():
            out = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=max_new_tokens)
        texts = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
        count += sum(check(text, query).steps_ok is True for text, (_, query) in zip(texts, batch, strict=True))
    return count

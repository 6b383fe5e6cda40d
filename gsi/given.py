"""`train.on_given: entropy`: of the given part of a response, only the tokens where the model was most uncertain are trained.

The rest of what was given is context. Definition, after Prefix-RFT (arXiv 2507.01679: gradients on the fifth of a demonstration's prefix with the
highest entropy) and Wang et al. (arXiv 2506.01939: the fifth of tokens with the highest entropy carries the learning): the entropy of
the next-token distribution, at temperature 1, of the model that drew the samples, after the plain question and the given tokens before
it; of each response's own given tokens the share `train.given_share` with the highest, at least one. So a row's mask depends on that row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from gsi.types import Completion, Example, Text

Entropies = Callable[[Sequence[tuple[Text, Completion]]], list[list[float]]]


def choose(entropies: Sequence[float], share: float) -> tuple[int, ...]:
    """A mask over tokens: 1 for the share with the highest entropy, at least one of them; of equals the earlier."""
    wanted = max(1, math.ceil(share * len(entropies) - 1e-9)) if entropies else 0
    top = set(sorted(range(len(entropies)), key=lambda i: (-entropies[i], i))[:wanted])
    return tuple(int(i in top) for i in range(len(entropies)))


def unmask(examples: Sequence[Example], prompt_tokens: Callable[[str], int], share: float, measure: Entropies) -> tuple[list[Example], int]:
    """Examples whose masked given part gets its most uncertain tokens trained, and the number of tokens that were read for it.

    Args:
        examples: with the given part masked (`curate(..., on_given=False)`).
        prompt_tokens: length of the plain prompt of a query id.
        measure: entropy at every token of each completion after its prompt, in nats.
    """
    parts: dict[tuple[str, int, int], tuple[int, int]] = {}  # (query, iteration, attempt) -> where the given part begins and ends
    for e in examples:
        begin, end = prompt_tokens(e.query_id), e.loss_mask.index(1)
        if e.source is None and end > begin:
            parts[e.query_id, e.iteration, e.attempt] = begin, end
    rows = {(e.query_id, e.iteration, e.attempt): e.input_ids for e in examples if (e.query_id, e.iteration, e.attempt) in parts}
    pairs = [(Text("", ids[: parts[k][0]]), Completion("", ids[parts[k][0] : parts[k][1]], "stop", 0)) for k, ids in rows.items()]
    masks = dict(zip(rows, (choose(e, share) for e in measure(pairs)), strict=True)) if pairs else {}
    changed = []
    for e in examples:
        key = (e.query_id, e.iteration, e.attempt)
        if key in masks:
            begin, end = parts[key]
            e = replace(e, loss_mask=e.loss_mask[:begin] + masks[key] + e.loss_mask[end:])
        changed.append(e)
    return changed, sum(end for _, end in parts.values())

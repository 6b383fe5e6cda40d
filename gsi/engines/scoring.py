"""Log-probabilities of given completions under a causal LM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gsi.types import Completion, GsiError, Text

TOKENS = 8192  # of one batch, padding included


@torch.inference_mode()
def score(model: Any, pairs: Sequence[tuple[Text, Completion]], max_rows: int) -> list[list[float]]:
    """At temperature 1, of every id of each completion after its prompt. Right-padded batches of similar length.

    Raises GsiError for a prompt without a token.
    """
    whole = [(*(prompt.ids or ()), *(completion.ids or ())) for prompt, completion in pairs]
    order = sorted(range(len(pairs)), key=lambda i: len(whole[i]))
    scores: list[list[float]] = [[] for _ in pairs]
    while order:
        longest = len(whole[order[-1]])
        size = max(1, min(max_rows, TOKENS // max(longest, 1)))
        batch, order = order[-size:], order[:-size]
        ids = torch.tensor([[*whole[i], *[0] * (longest - len(whole[i]))] for i in batch], device=model.device)  # (b, longest)
        logits = model(input_ids=ids, use_cache=False).logits
        for row, i in enumerate(batch):
            prompt = len(pairs[i][0].ids or ())
            if prompt == 0:
                raise GsiError("engine transformers: a completion is scored after its prompt, and this prompt has no token")
            logp = torch.log_softmax(logits[row, prompt - 1 : len(whole[i]) - 1].float(), -1)  # (n, V)
            scores[i] = logp.gather(-1, ids[row, prompt : len(whole[i]), None])[:, 0].tolist()
    return scores

"""What a causal LM thinks of given completions: log-probabilities and entropies, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gsi.types import Completion, GsiError, Text

TOKENS = 8192  # of one batch, padding included


def score(model: Any, pairs: Sequence[tuple[Text, Completion]], max_rows: int) -> list[list[float]]:
    """Log-probability, at temperature 1, of every id of each completion after its prompt. Raises GsiError for a prompt without a token."""
    return _measure(model, pairs, max_rows, lambda logp, ids: logp.gather(-1, ids[:, None])[:, 0])


def entropies(model: Any, pairs: Sequence[tuple[Text, Completion]], max_rows: int) -> list[list[float]]:
    """Entropy in nats, at temperature 1, of the distribution that every id of each completion is drawn from. Raises as `score`."""
    return _measure(model, pairs, max_rows, lambda logp, ids: torch.special.entr(logp.exp()).sum(-1))


@torch.inference_mode()
def _measure(
    model: Any, pairs: Sequence[tuple[Text, Completion]], max_rows: int, what: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> list[list[float]]:
    """`what` of the log-probabilities (n, V) and the ids (n,) of every completion, as n numbers. Right-padded batches of similar length."""
    whole = [(*(prompt.ids or ()), *(completion.ids or ())) for prompt, completion in pairs]
    order = sorted(range(len(pairs)), key=lambda i: len(whole[i]))
    found: list[list[float]] = [[] for _ in pairs]
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
            found[i] = what(logp, ids[row, prompt : len(whole[i])]).tolist()
    return found

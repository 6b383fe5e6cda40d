"""What a causal LM thinks of given completions: log-probabilities and entropies, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gsi.engines.loading import out_of_memory
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
    """`what` of the log-probabilities (n, V) and the ids (n,) of every completion, as n numbers. Right-padded batches of similar length.

    Where memory runs out, batches are half as large from then on.
    """
    lengths = [len(prompt.ids or ()) + len(completion.ids or ()) for prompt, completion in pairs]
    tokens = TOKENS
    order = sorted(range(len(pairs)), key=lambda i: lengths[i])
    found: list[list[float]] = [[] for _ in pairs]
    while order:
        longest = lengths[order[-1]]
        size = min(len(order), max(1, min(max_rows, tokens // max(longest, 1))))
        starved: str | None = None
        try:
            for i, values in zip(order[-size:], _batch(model, [pairs[i] for i in order[-size:]], what), strict=True):
                found[i] = values
        except RuntimeError as e:
            if not out_of_memory(e):
                raise
            starved = str(e)
        if starved is None:
            order = order[:-size]
            continue
        if size == 1:  # out here: inside, the traceback still holds the activations
            raise GsiError(
                f"engine transformers: out of memory while a single response of {longest} tokens, prompt included, is scored; "
                f"lower sample.max_new_tokens or use a device with more memory: {starved}"
            )
        tokens = size * longest // 2
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def _batch(
    model: Any, pairs: Sequence[tuple[Text, Completion]], what: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> list[list[float]]:
    whole = [(*(prompt.ids or ()), *(completion.ids or ())) for prompt, completion in pairs]
    longest = max(map(len, whole))
    ids = torch.tensor([[*w, *[0] * (longest - len(w))] for w in whole], device=model.device)  # (b, longest)
    logits = model(input_ids=ids, use_cache=False).logits
    found = []
    for row, (text, _) in enumerate(pairs):
        prompt = len(text.ids or ())
        if prompt == 0:
            raise GsiError("engine transformers: a completion is scored after its prompt, and this prompt has no token")
        logp = torch.log_softmax(logits[row, prompt - 1 : len(whole[row]) - 1].float(), -1)  # (n, V)
        found.append(what(logp, ids[row, prompt : len(whole[row])]).tolist())
    return found

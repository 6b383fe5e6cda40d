"""Drawing one token per row: uniform numbers by identity, the nucleus, loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsi.types import Request


def uniform(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) from (seed, step), both uint64 of one shape: splitmix64 of a counter stream."""
    with np.errstate(over="ignore"):
        x = seeds + (steps + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logits: torch.Tensor, requests: Sequence[Request], steps: Sequence[int]) -> torch.Tensor:
    """One token per row of logits (rows, V): greedy at temperature 0, else sampled for (request seed, step)."""
    greedy = [r.sampling.temperature == 0 for r in requests]
    if all(greedy):
        return logits.argmax(-1)
    sampled = _sample(logits, requests, steps)
    return torch.where(torch.tensor(greedy, device=logits.device), logits.argmax(-1), sampled) if any(greedy) else sampled


def _sample(logits: torch.Tensor, requests: Sequence[Request], steps: Sequence[int]) -> torch.Tensor:
    """Inverse CDF of one uniform number per row."""
    temperature = torch.tensor([r.sampling.temperature or 1.0 for r in requests], device=logits.device)
    top_p = [r.sampling.top_p for r in requests]
    probs = torch.softmax(logits.float() / temperature[:, None], -1)  # (rows, V)
    if min(top_p) < 1:
        probs = nucleus(probs, torch.tensor(top_p, device=logits.device))
    cdf = probs.double().cumsum(-1)
    u = uniform(np.array([r.seed for r in requests], dtype=np.uint64), np.array(steps, dtype=np.uint64))
    drawn = torch.from_numpy(u).to(logits.device) * cdf[:, -1]
    return torch.searchsorted(cdf, drawn[:, None], right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)


def nucleus(probs: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zeroes all but the smallest set of most likely tokens whose mass reaches top_p (rows without top_p keep all)."""
    ordered, index = probs.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # mass of the more likely tokens
    ordered = ordered.masked_fill(before >= top_p[:, None], 0.0)
    return torch.zeros_like(probs).scatter_(-1, index, ordered)


def repeats(ids: Sequence[int], window: int) -> bool:
    """Whether the last `window` ids repeat one cycle at least four times. Looked at every 16 tokens."""
    if len(ids) < window or len(ids) % 16:
        return False
    tail = ids[-window:]
    return any(tail[period:] == tail[:-period] for period in range(1, window // 4 + 1))

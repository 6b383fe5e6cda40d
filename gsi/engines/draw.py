"""Drawing one token per row: uniform numbers by identity, the nucleus, loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def uniform(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) from (seed, step), both uint64 of one shape: splitmix64 of a counter stream."""
    with np.errstate(over="ignore"):
        x = seeds + (steps + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


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

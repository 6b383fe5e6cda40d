"""Whether an engine's samples have the model's distribution."""

from collections import Counter

import numpy as np
import torch


def check_first_tokens(run, model, requests) -> None:
    """Chi-square of the first tokens of equal requests (but for their seeds) against the plain forward pass's probabilities.

    `run`: requests -> completions; `model`: the same model in transformers.
    """
    counts, n, s = Counter(c.ids[0] for c in run(requests)), len(requests), requests[0].sampling
    with torch.inference_mode():
        logits = model(torch.tensor([requests[0].prompt.ids])).logits[0, -1]
    p = torch.softmax(logits / s.temperature, -1).double().numpy()
    order = np.argsort(-p)
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), s.top_p) + 1)] if s.top_p < 1 else order
    assert set(counts) <= set(kept.tolist())
    q = p[kept] / p[kept].sum()
    big = q * n >= 5
    expected = np.append(q[big] * n, q[~big].sum() * n)
    observed = np.append([counts[t] for t in kept[big]], sum(counts[t] for t in kept[~big]))
    keep = expected > 0
    chi2, freedom = ((observed - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom), f"chi-square {chi2:.0f} with {freedom} degrees of freedom"

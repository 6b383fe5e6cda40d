"""Rows packed one behind another without padding, each attending to itself alone.

    CUDA   torch's own variable-length flash attention (`torch.nn.attention.varlen`), bf16 or fp16
    CPU    one scaled_dot_product_attention per row: exact, and what the tests compare with; slow for many short rows

The boundaries travel as `cu_seq_lens_q`, the keyword that TRL's padding-free collator and transformers' attention layers share.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "gsi_varlen"
# what some models' layers also ask of their attention and this one does not do: capped logits (Gemma 2), sinks (gpt-oss), a bias, a choice of keys
UNKNOWN = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of a pack. query (1, H, T, D), key and value (1, H_kv, T, D) -> (1, T, H, D)."""
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None or query.shape[0] != 1:
        raise ValueError("packed attention needs a batch of one pack with its row boundaries (cu_seq_lens_q)")
    window = kwargs.get("sliding_window")
    grouped = query.shape[1] != key.shape[1]
    if kwargs.get("dropout"):
        raise ValueError("packed attention has no dropout; set train.packing=false, or attention_dropout 0 in the model's config")
    if asked := [name for name in UNKNOWN if kwargs.get(name) is not None]:
        raise ValueError(f"packed attention does not know {', '.join(asked)}, which this model's attention has; set train.packing=false")
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions may have left them in float32 under autocast
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
        longest = int(kwargs["max_length_q"])
        span = (window - 1, 0) if window else (-1, 0)
        out: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=span, enable_gqa=grouped)
        return out[None], None
    rows = []
    for a, b in itertools.pairwise(bounds.tolist()):
        q, k, v = query[:, :, a:b], key[:, :, a:b], value[:, :, a:b]
        mask = None
        if window and b - a > window:
            at = torch.arange(b - a, device=query.device)
            distance = at[:, None] - at[None, :]
            mask = (distance >= 0) & (distance < window)
        rows.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped))
    return torch.cat(rows, 2).transpose(1, 2), None


def register() -> str:
    """Makes the attention known to transformers and returns the name to load a model with."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    return NAME


def wanted(packing: bool | None, device: str) -> bool:
    """Whether to pack where the model allows it; None = on GPUs."""
    return device != "cpu" if packing is None else packing


def packs(model: Any) -> bool:
    """Whether a model was loaded to take packed rows."""
    return bool(model.config._attn_implementation == NAME)


@torch.no_grad()
def isolates(model: Any, device: str, bf16: bool) -> bool:
    """Whether this model gives a row the same logits behind another row as alone: layers that are no attention may leak.

    Also False where its attention asks for what packed attention does not do; both ways would be wrong alike.
    """
    if "chunked_attention" in (getattr(model.config.get_text_config(), "layer_types", None) or ()):
        return False  # Llama 4: told by the mask alone, which packed attention does without
    size = model.config.get_text_config().vocab_size
    ids = (torch.arange(21, device=device) * 7 + 2) % size
    rows = {"packed": [ids[:12], ids[12:]], "alone": [ids[12:]]}
    logits = {}
    try:
        for name, parts in rows.items():
            bounds = torch.tensor([0, *itertools.accumulate(map(len, parts))], dtype=torch.int32, device=device)
            longest = max(map(len, parts))
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
                logits[name] = model(
                    input_ids=torch.cat(parts)[None], position_ids=torch.cat([torch.arange(len(p), device=device) for p in parts])[None],
                    cu_seq_lens_q=bounds, cu_seq_lens_k=bounds, max_length_q=longest, max_length_k=longest, use_cache=False,
                ).logits[0, -9:].float()  # fmt: skip
    except (TypeError, ValueError, NotImplementedError):
        return False  # it takes no packed rows at all
    error = (logits["packed"] - logits["alone"]).abs().max() / logits["alone"].abs().max().clamp(min=1e-6)
    return bool(error < (5e-2 if bf16 else 1e-4))

"""The size of a model from its dimensions: parameters, and memory of its KV cache. No weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsi.config.cost import Dimensions


def parameters(d: Dimensions) -> int:
    """Parameters of a decoder with gated MLP and grouped-query attention (Llama, Mistral, Qwen3, SmolLM3, Gemma 3), norms included."""
    head = d.head_dim or d.hidden // d.heads
    attention = 2 * d.hidden * d.heads * head + 2 * d.hidden * d.kv_heads * head + (2 * head if d.qk_norm else 0)
    layer = attention + 3 * d.hidden * d.intermediate + d.norms * d.hidden
    return d.vocabulary * d.hidden * (1 if d.tied else 2) + d.layers * layer + d.hidden


def kv_bytes(d: Dimensions, width: int = 2) -> int:
    """Bytes of the KV cache per token (width: bytes per number). Sliding windows, which need less, are not taken into account."""
    return 2 * d.layers * d.kv_heads * (d.head_dim or d.hidden // d.heads) * width


def lora_parameters(d: Dimensions, rank: int) -> int:
    """Trained parameters of LoRA on every linear layer but the output: rank x (in + out) each."""
    head = d.head_dim or d.hidden // d.heads
    q, kv = d.heads * head, d.kv_heads * head
    sides = (d.hidden + q) + 2 * (d.hidden + kv) + (q + d.hidden) + 3 * (d.hidden + d.intermediate)
    return d.layers * rank * sides


def activations(d: Dimensions, method: str, checkpointing: bool) -> float:
    """Bytes per token that a training pass holds at its peak: layers under bfloat16 autocast, and the logits (bfloat16, float32, their gradient).

    Full fine-tuning has float32 weights and so a float32 residual stream; LoRA has the base's bfloat16. Nothing is kept of attention scores.
    The numbers of a layer are those that tests/test_recipes.py counts on small models of three architectures.
    """
    h, q, kv = d.hidden, d.heads * (d.head_dim or d.hidden // d.heads), d.kv_heads * (d.head_dim or d.hidden // d.heads)
    full = method == "full"
    layer = (26.0 if full else 20.5) * h + 4 * q + 4 * kv + 8 * d.intermediate
    layer += (6 if full else 4) * (q + kv) * d.qk_norm + (9.5 if full else 4) * h * (d.norms - 2)
    kept = d.layers * h * (4 if full else 2) + layer if checkpointing else d.layers * layer
    return kept + (10 if full else 4) * h + 10.0 * d.vocabulary  # the last norm, the logits


def states(d: Dimensions, method: str, rank: int, processes: int = 1) -> float:
    """Bytes of weights, gradients and AdamW's two moments on one of `processes` that share them.

    Trained: 16 per parameter (float32), and 2 for the bfloat16 copy that autocast keeps; a frozen base 2, in 4 bits about 0.6.
    """
    if method == "full":
        return 18.0 * parameters(d) / processes
    return ((0.6 if method == "qlora" else 2.0) * parameters(d) + 18.0 * lora_parameters(d, rank)) / processes


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # by which configs tell a mixture


def read(model: str) -> Dimensions | None:
    """Dimensions by the config.json of a local directory or of a hub model in the local cache; None where there is none of this kind.

    So for a mixture of experts: of its parameters `parameters` counts those of one expert.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(model, "config.json")
        except HFValidationError:  # no name of the hub
            return None
        if not isinstance(found, str):
            return None
        path = Path(found)
    c: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    c = c.get("text_config", c)
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    if any(not isinstance(c.get(key), int) for key in needed) or any(c.get(key) for key in _EXPERTS):
        return None
    kind = str(c.get("model_type", ""))
    return Dimensions(
        layers=c["num_hidden_layers"], hidden=c["hidden_size"], heads=c["num_attention_heads"],
        kv_heads=c.get("num_key_value_heads") or c["num_attention_heads"], head_dim=c.get("head_dim"), intermediate=c["intermediate_size"],
        vocabulary=c["vocab_size"], tied=bool(c.get("tie_word_embeddings", kind.startswith("gemma"))),
        qk_norm=kind.startswith(("qwen3", "gemma3")), norms=4 if kind.startswith(("gemma2", "gemma3")) else 2,
    )  # fmt: skip

"""Loading a causal LM for the embedded engine, with errors that say what to change."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from gsi.engines.text import end_ids
from gsi.types import GsiError


def pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as e:
        raise GsiError(f"engine.device: {device!r} is no device; use `auto`, `cpu`, `cuda` or `cuda:1`") from e
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise GsiError(
            f"engine.device: {device!r}, but torch sees no CUDA device; use `auto` or `cpu`, and at most as many engine.replicas as GPUs"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise GsiError(f"engine.device: {device!r}, but torch sees only {torch.cuda.device_count()} CUDA device(s)")
    return chosen


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had too little memory, on a GPU or (where it raises no class of its own) in main memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def load_model(name: str, device: torch.device, dtype: str) -> Any:
    """A causal LM in eval mode. Raises GsiError when there is none under that name."""
    kind = ("bfloat16" if device.type == "cuda" else "float32") if dtype == "auto" else dtype
    disable_progress_bar()  # the run shows its own
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, kind), use_safetensors=True)
    except (OSError, ValueError, KeyError) as e:
        raise GsiError(f"model: {name!r} cannot be loaded as a causal LM: {e}") from e
    return model.to(device).eval()


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """End tokens of the model's generation config and of the tokenizer."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    return end_ids(configured, tokenizer)


def window_of(config: Any, context: int, name: str) -> int | None:
    """The sliding window that every layer uses, or None. Raises for a mix of windows that the context would exceed."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if not window or context <= window or kinds == {"full_attention"}:
        return None
    if kinds == {"sliding_attention"}:
        return window
    raise GsiError(
        f"engine transformers: {name} mixes layers with and without a sliding window of {window}; set `engine.max_length: {window}` or use vLLM"
    )

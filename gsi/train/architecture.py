"""Which architectures can be trained, told from a model's config: no weights are read."""

from __future__ import annotations

from typing import Any

from gsi.types import GsiError


def check(model: str) -> None:
    """Raises GsiError, by name, for a model (directory or hub id) that the training child would refuse after everything was sampled."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    except (OSError, ValueError) as e:
        raise GsiError(f"model: {model} cannot be trained: {str(e).splitlines()[0]}") from e
    check_head(empty)


def check_head(model: Any) -> None:
    """Raises GsiError where TRL's fused head finds no layers under the name the model gives for them (Llama 4)."""
    if model.base_model is model:
        raise GsiError(
            f"model: {type(model).__name__} cannot be trained here: TRL's fused head does not know this architecture; use another model"
        )

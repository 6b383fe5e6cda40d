"""Config of what `--dry-run` is told: the size of the model and the hardware. Nothing else reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gsi.config.section import Section


class Dimensions(Section):
    """Size of the model, so that `--dry-run` needs neither its files nor the hub; null in the config = read from the model's own config."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int  # of the gated MLP
    vocabulary: int
    head_dim: int | None = None  # null = hidden / heads
    tied: bool = False  # input and output embeddings are one
    qk_norm: bool = False  # Qwen3, Gemma 3
    norms: int = 2  # per layer; Gemma 3 has 4


class Cost(Section):
    """What `--dry-run` knows of the hardware (formulas: gsi/cost.py); nothing else reads it."""

    gpu: Literal["h100", "a100-80gb", "a100-40gb", "l4", "rtx4090", "rtx3090"] | None = None
    gpus: Annotated[int, Field(ge=1)] = 1  # that are paid for
    price_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    decode_tokens_per_second: Annotated[float, Field(gt=0)] | None = None  # of one engine, measured; null = by formula
    train_tokens_per_second: Annotated[float, Field(gt=0)] | None = None  # of one training process, measured; null = by formula
    start_seconds: Annotated[float, Field(ge=0)] | None = None  # per engine and per training; null = 60

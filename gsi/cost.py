"""What a run costs before it runs: tokens, memory, time and money, from stated formulas. Pure functions.

    attempts   N x k  to  N x (k + max_extra) per iteration; a probe narrows this to what its queries took
    tokens     attempts x response tokens: the mean length of the references, or of the probe's responses
    training   accepted rows x their response tokens x epochs, as `train/tokens` counts them; rows: 0.2 N x k to all attempts, or the probe's share;
               and what `curate.references` adds: all: a row per query that has one; short: up to as many; prefixes: up to 8 openings of each
    evaluation one response (evaluate.pass_at_k, avg_at_k: as many as they draw) per validation query after the warm start and every iteration; the
               test sets three times (first, chosen and final model), with evaluate.trajectory as often as the validation queries
    strata     strata.draws responses per query of training, validation and test sets whose task declares no level, once
    FLOPs      2 x parameters per token read or generated, 6 x parameters per token trained (metrics.flops)

    memory     sampling   weights + KV cache: 2 bytes x parameters + rows x (prompt + new tokens) x 2 x layers x KV heads x head size x 2 bytes;
                          rows: the embedded engine's bounds; of vLLM, which fits what it can, one (the least it needs)
               training   dimensions.states: full 18 bytes x parameters (float32 weights, gradients, two Adam moments, a bfloat16 copy), divided by
                          the processes where sharded; LoRA: the weights as stored + 18 bytes x trained parameters; QLoRA: 0.6 bytes x parameters + the same
                          + micro batch x length x dimensions.activations

    time       tokens / rate, per GPU, and starts: 60 s per engine, 60 s per training on a GPU
               generating  rows / (2 bytes x parameters + rows x KV bytes) x bandwidth x 0.5, at most peak / (2 x parameters) x 0.4
               reading     peak / (2 x parameters) x 0.4;   training  peak / (6 x parameters) x 0.4, prompts included  (LoRA the same: it saves memory, not passes)
    money      GPUs x hours x price per GPU hour

A rate that was measured replaces its formula: `cost.decode_tokens_per_second` and `cost.train_tokens_per_second` (of generated and of trained
tokens), else the probe's, which is low where the probe does not fill the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gsi import metrics
from gsi.config import Config
from gsi.config.cost import Dimensions
from gsi.config.engines import OpenAIEngine, RayEngine, TransformersEngine, VllmEngine
from gsi.dimensions import activations, kv_bytes, states

GPUS = {  # name -> (peak bfloat16 FLOP/s without sparsity, memory bandwidth in bytes/s, memory in bytes), by NVIDIA's data sheets
    "h100": (989e12, 3.35e12, 80e9),
    "a100-80gb": (312e12, 2.04e12, 80e9),
    "a100-40gb": (312e12, 1.56e12, 40e9),
    "l4": (121e12, 0.30e12, 24e9),
    "rtx4090": (165e12, 1.01e12, 24e9),
    "rtx3090": (71e12, 0.94e12, 24e9),
}
BANDWIDTH_SHARE, PEAK_SHARE = 0.5, 0.4  # of the data sheet that a decoding loop and a matrix product reach
START = 60.0  # seconds until an engine or a training process works, on a GPU


class Range(NamedTuple):
    low: float
    high: float

    def __mul__(self, factor: object) -> Range:
        assert isinstance(factor, int | float)
        return Range(self.low * factor, self.high * factor)

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


NONE = Range(0.0, 0.0)


@dataclass(frozen=True)
class Load:
    """How much work an iteration is."""

    queries: int
    validation: int
    test: int
    attempts: Range  # per iteration
    rows: Range  # accepted, per iteration
    prompt: float  # tokens
    response: float  # tokens generated per attempt
    row: float  # tokens trained per accepted row; wrong attempts tend to be longer
    references: Range = NONE  # rows made from references, per iteration
    reference: float = 0.0  # tokens trained per such row
    unlevelled: int = 0  # queries of all three, of tasks without levels
    decode_rate: float | None = None  # tokens per second of one engine, measured


@dataclass(frozen=True)
class Estimate:
    """Of the whole run. Seconds are None where nothing is known of the hardware."""

    generated: Range
    evaluated: float  # strata included
    trained: Range
    flops: Range | None
    sampling_seconds: Range | None
    training_seconds: Range | None
    hours: Range | None
    money: Range | None


def memory(config: Config, d: Dimensions, parameters: int, prompt: float) -> tuple[float, float]:
    """(bytes for sampling, bytes for training) on one GPU."""
    e, t = config.drawing, config.train
    length = prompt + config.sample.max_new_tokens
    cached = min(e.max_rows * length, e.max_batch_tokens) if isinstance(e, TransformersEngine) else length
    shared = e.tensor_parallel if isinstance(e, VllmEngine) else 1
    sampling = (2.0 * parameters + cached * kv_bytes(d)) / shared
    sharded = t.processes if t.parallel in ("fsdp2", "zero3") else 1
    tokens = t.micro_batch_size * min(t.max_length, length)
    return sampling, states(d, t.method, t.lora_r, sharded) + tokens * activations(d, t.method, t.gradient_checkpointing)


def decode_rate(config: Config, d: Dimensions, parameters: int, context: float) -> float | None:
    """Tokens per second that one GPU generates; None without `cost.gpu`."""
    if config.cost.gpu is None:
        return None
    peak, bandwidth, _ = GPUS[config.cost.gpu]
    rows = config.drawing.max_rows if isinstance(config.drawing, TransformersEngine | VllmEngine) else 1
    by_memory = rows / (2.0 * parameters + rows * context * kv_bytes(d)) * bandwidth * BANDWIDTH_SHARE
    return min(by_memory, peak / (2.0 * parameters) * PEAK_SHARE)


def estimate(config: Config, load: Load, parameters: int, d: Dimensions | None) -> Estimate:
    c, n = config.cost, config.iterations
    generated = load.attempts * (load.response * n)
    samples = max(
        config.evaluate.avg_at_k, 1 + max(config.evaluate.pass_at_k, default=1) if max(config.evaluate.pass_at_k, default=1) > 1 else 1
    )
    asked = load.validation * (n + 1) + load.test * (n + 1 if config.evaluate.trajectory else min(3, n + 1))
    evaluated = (asked * samples + load.unlevelled * config.strata.draws) * load.response
    rows = load.rows if config.train.data == "replace" else load.rows * ((n + 1) / 2)
    trained = (rows * load.row).plus(load.references * load.reference) * (config.train.epochs * n)
    if config.warm_start:
        warm = load.queries * load.row * config.warm_start.epochs
        trained = trained.plus(Range(warm, warm))
    read = load.attempts * (load.prompt * n)
    flops = None
    if parameters:
        flops = Range(
            *(metrics.flops(parameters, int(p), int(g + evaluated), int(t)) for p, g, t in zip(read, generated, trained, strict=True))
        )
    found = Estimate(generated, evaluated, trained, flops, None, None, None, None)
    rate = (
        c.decode_tokens_per_second
        or load.decode_rate
        or (decode_rate(config, d, parameters, load.prompt + load.response / 2) if d else None)
    )
    train_rate = c.train_tokens_per_second
    if train_rate is None and c.gpu and parameters:
        train_rate = GPUS[c.gpu][0] / (6.0 * parameters) * PEAK_SHARE * load.row / (load.prompt + load.row)
    if rate is None or train_rate is None:
        return found
    reading = GPUS[c.gpu][0] / (2.0 * parameters) * PEAK_SHARE if c.gpu else None  # without a GPU: part of the measured rate
    start = c.start_seconds if c.start_seconds is not None else START
    sampling = Range(*(((g + evaluated) / rate + (p / reading if reading else 0.0)) / _replicas(config) + start * (n + 1) for g, p in zip(generated, read, strict=True)))  # fmt: skip
    training = Range(*(t / train_rate / config.train.processes + start * (n + bool(config.warm_start)) for t in trained))
    hours = sampling.plus(training) * (1 / 3600)
    money = hours * (c.gpus * c.price_per_gpu_hour) if c.price_per_gpu_hour else None
    return replace(found, sampling_seconds=sampling, training_seconds=training, hours=hours, money=money)


def _replicas(config: Config) -> int:
    """Copies of the model that generate side by side."""
    of = config.drawing
    own = len(of.url) if isinstance(of, OpenAIEngine) and not isinstance(of.url, str) else getattr(of, "replicas", 1)
    return own * (config.engine.replicas if isinstance(config.engine, RayEngine) else 1)


def bootstrap(values: Sequence[float], seed: int, draws: int = 1000) -> tuple[float, float, float]:
    """(mean, low, high): the mean of per-query values with its 95 % percentile interval over queries."""
    import random

    rng = random.Random(seed)
    mean = sum(values) / len(values)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(draws))
    return mean, means[int(0.025 * draws)], means[int(0.975 * draws) - 1]

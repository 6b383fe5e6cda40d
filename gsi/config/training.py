"""Config of what is trained on and how: warm start, curation, training, and the tail monitor between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gsi.config.data import Task
from gsi.config.section import Section

Weight = Annotated[float, Field(ge=0, le=1)]


class WarmStart(Section):
    """Supervised training on reference rationales before iteration 1; gives the iter_0 model."""

    tasks: list[Task] = Field([])  # empty = the training queries of the run that have a rationale
    limit: Annotated[int, Field(ge=0)] = 0  # at most N rationales, drawn with the run's seed; 0 = all
    epochs: Annotated[float, Field(gt=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5


Leak = Literal["mention", "early_answer", "copy", "steps"]  # filters of gsi/gate.py


class Gate(Section):
    """Which guided samples are trained on (docs/curation.md)."""

    reliance: Literal["none", "filter", "choose", "weight"] = "none"  # hint reliance, by an engine that scores (transformers)
    threshold: Annotated[float, Field(le=0)] = -0.1  # filter: guided samples with less, in nats per token, are dropped
    best: Annotated[int, Field(ge=1)] = 1  # choose: of a query's accepted guided samples those with the most
    temperature: Annotated[float, Field(gt=0)] = 0.1  # weight: exp(min(reliance, 0) / temperature)
    leaks: tuple[Leak, ...] = ()  # guided samples with one are dropped
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.5  # copy: share of word sequences in common from which it is one


class Upweight(Section):
    """Accepted samples count more the less likely they were (docs/curation.md)."""

    by: Literal[
        "pass_rate", "likelihood"
    ]  # of the query's plain attempts, or of the sample among its query's accepted ones (needs an engine that scores)
    power: Annotated[float, Field(gt=0)] = 0.5
    most: Annotated[float, Field(ge=1)] = 4.0  # no weight above this, none below its inverse


class Curate(Section):
    cap: Annotated[int, Field(ge=0)] = 0  # rows per query at most; 0 = no cap
    floor: Annotated[int, Field(ge=0, le=1000)] = 0  # a query with fewer rows (but at least one) has them repeated up to this
    distinct: bool | Literal["text", "steps"] = False  # of equal completions of one query keep one; true = text; steps: equal equations
    gate: Gate = Gate()
    upweight: Upweight | None = None
    # control arms; null = the strategy's
    references: Literal["none", "all", "short", "prefixes"] | None = (
        None  # adds references: of all queries, of those under quota, or openings
    )
    verdicts: bool | None = None  # false: as many rows per query as were accepted, drawn from all attempts (needs `control: true`)
    match: Literal["levels", "rows"] | None = None  # brings the rows to those of the run `like`: its level histogram, or its number
    like: str | None = None  # run folder for `match`, with the same training queries
    rows_of: str | None = None  # run folder whose last training rows are taken instead of this run's rollouts
    tokens: Annotated[int, Field(ge=0)] = 0  # rows, drawn with the run's seed, of this many trained tokens at most; 0 = all

    @property
    def scored(self) -> Literal["guided", "all"] | None:
        """Which accepted responses need a score: the guided ones, all, or none."""
        if self.upweight and self.upweight.by == "likelihood":
            return "all"
        return "guided" if self.gate.reliance != "none" else None


class Interpolate(Section):
    """The trained weights mixed with others: (1 - weight) x trained + weight x other (WiSE-FT, arXiv 2109.01903)."""

    with_: Literal["base", "last"] = Field("base", alias="with")  # the base model, or the model before this iteration
    weight: Weight | tuple[Weight, ...] = 0.5  # of the other model; several: the best on the validation split is taken


class EarlyStopping(Section):
    """Training ends when the loss on held-out queries no longer falls; the best weights are kept."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of the queries with training rows: held out, never the test set
    evaluations: Annotated[int, Field(ge=1)] = 10  # over the whole training
    patience: Annotated[int, Field(ge=1)] = 2  # evaluations without a new best


class TrainCluster(Section):
    """Training by Ray Train on a Ray cluster, `train.processes` workers (docs/cluster.md)."""

    address: str | None = None  # as engine ray's
    folder: str | None = None  # that every node sees: rows, checkpoints and the trained model go through it; null = the run folder
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None  # of one worker; null = a CPU, or a GPU where the cluster has any


class Train(Section):
    kind: Literal["trl", "scripted"] = "trl"
    function: str | None = None  # kind scripted: `module:function` or `file.py:function`: (job) -> dict of figures
    from_: Literal["base", "last"] = Field("base", alias="from")  # weights each iteration starts from
    data: Literal["replace", "accumulate"] = "replace"  # this iteration's rows, or those of all iterations
    replay: Annotated[float, Field(ge=0)] = 0.0  # rows of earlier iterations added, as a share of the new ones (data: replace)
    interpolate: Interpolate | None = None
    early_stopping: EarlyStopping | None = None
    method: Literal["full", "lora", "qlora"] = "full"
    lora_r: Annotated[int, Field(ge=1)] = 16
    lora_alpha: Annotated[int, Field(ge=1)] = 32
    # the given part of a response: true = trained too (the paper), false = context only, entropy = its most uncertain tokens are trained
    on_given: Literal[True, False, "entropy"] = True
    given_share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # on_given entropy: of a response's given tokens, those with the highest entropy
    epochs: Annotated[float, Field(gt=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of the steps
    batch_size: Annotated[int, Field(ge=1)] = 64  # rows per optimizer step
    micro_batch_size: Annotated[int, Field(ge=1)] = 8  # rows per forward pass at most (packed: on average): a batch is cut into like parts
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0  # gradient norm
    max_length: Annotated[int, Field(ge=2)] = 2048  # longer rows are dropped with a reason
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto = bfloat16 on cuda, float32 on cpu
    device: str = "auto"
    processes: Annotated[int, Field(ge=1)] = 1  # GPUs, or with device cpu processes on this machine
    cluster: TrainCluster | None = None  # processes = workers of a Ray cluster instead
    parallel: str = "ddp"  # with processes > 1: ddp, fsdp2, zero2, zero3 or a YAML file of your own (docs/training.md)
    packing: bool | None = None  # rows behind one another without padding; null = on GPUs only (CPU: batches of similar length)
    liger: bool = False  # Liger kernels (package liger-kernel, GPU)
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10  # a killed training goes on from its last checkpoint; 0 = off
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0  # also every so many steps; 0 = by time only
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a step or another sign of life of the training, then it is ended; 0 = never
    )


class Monitor(Section):
    """The tail monitor: what happens when it raises an alarm (docs/curation.md)."""

    on_alarm: Literal["off", "warn", "stop", "rollback"] = "warn"  # rollback: the rows are not trained on, the best earlier model goes on
    threshold: Annotated[float, Field(gt=0)] = 3.0  # z from which a change is more than chance; the default is calibrated
    least: Annotated[float, Field(ge=0)] = 0.05  # smaller changes raise no alarm

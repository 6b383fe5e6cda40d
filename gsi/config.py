"""Typed configuration: YAML plus `a.b=c` overrides. Class defaults are the paper's settings (arXiv 2411.00750).

An unknown key or a bad value raises `ConfigError`, which says where it is, what is allowed and, for a typo, the
nearest known key. Functions elsewhere receive values from here, not the whole tree.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gsi.presets import PRESETS, fill
from gsi.strategies import STRATEGIES
from gsi.types import GsiError


class ConfigError(GsiError):
    """The configuration is wrong; the message names the key and the fix."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _no_login(url: str) -> None:
    """Refuses a name or password in a URL, because the config is stored."""
    if "@" in url.split("://")[-1].split("/")[0]:
        raise ValueError(
            "url: a name or password in it would be written to config.yaml; put the key into the variable that api_key_env names"
        )


class Columns(Section):
    """Which column of the data holds what; `a.b` is a field inside a column. Left out: our own name, else a built-in task's, else TRL's."""

    id: str = "id"
    question: str = "question"
    answer: str = "answer"
    rationale: str = "rationale"
    level: str = "level"
    options: str = "options"


class Task(Section):
    name: str  # gsm8k, svamp, math, math500, theoremqa, aqua, mathqa, auto, a lab task (chain), or a name of your own
    path: str | None = None  # file: .jsonl, .json, .csv, .tsv (.gz too) or .parquet
    hub: str | None = None  # data set id on the Hugging Face hub, `id` or `id:configuration`
    split: str = "train"
    columns: Columns = Columns()
    limit: Annotated[int, Field(ge=0)] = 0  # only the first N rows; 0 = all
    weight: Annotated[float, Field(gt=0)] | None = None  # share in a mixture, as 2 beside 1; null = every question
    check: str | None = None  # own checker `module:function` or `file.py:function`: (response, query) -> bool or Verdict
    programs: bool = False  # responses are Python programs (program-of-thought), run isolated
    shuffle_options: bool = False  # multiple choice: attempts show the options in orders of their own (training and evaluation never do)
    hard_levels: tuple[int, ...] = ()  # levels that count as hard; empty = the task's own declaration
    args: dict[str, Any] = {}  # of a generated (lab) task, e.g. {per_level: 100, seed: 1}


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


class WarmStart(Section):
    """Supervised training on reference rationales before iteration 1; gives the iter_0 model."""

    tasks: list[Task] = []  # empty = the training queries of the run that have a rationale
    limit: Annotated[int, Field(ge=0)] = 0  # at most N rationales, drawn with the run's seed; 0 = all
    epochs: Annotated[float, Field(gt=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5


class Strata(Section):
    """Tasks without levels get five, by how often the initial model solves a query; the last counts as hard."""

    draws: Annotated[int, Field(ge=0)] = 0  # attempts per query of training, validation and test sets, used for nothing else; 0 = no strata


class Prompt(Section):
    template: str = "auto"  # auto = chat where the tokenizer has a template, else plain; or text with {question}
    instruction: str = ""  # appended to every question, plain and hinted alike
    chat_template_kwargs: dict[str, Any] = {}
    thinking: Literal["keep", "strip"] | None = None  # of a thinking model's responses, what is trained on: all, or what follows </think>


class Sample(Section):
    k: Annotated[int, Field(ge=1)] = 8  # plain attempts that every query gets
    wanted: Annotated[int, Field(ge=0)] = 4  # accepted responses that a query needs to be left alone
    max_extra: Annotated[int, Field(ge=0)] | None = None  # extra attempts per query at most; null = the strategy's
    temperature: Annotated[float, Field(ge=0)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    stop: tuple[str, ...] = ()
    repetition_stop: Annotated[int, Field(ge=0)] = 0  # ends a response whose last N tokens repeat a cycle 4 times; 0 = off


class Allocation(Section):
    """Who gets the next attempt (docs/curation.md, docs/guidance.md)."""

    kind: Literal["none", "fixed", "quota", "stepwise", "floor", "dart_uniform", "dart_prop2diff", "bayes"] | None = (
        None  # null = the strategy's
    )
    group: Annotated[int, Field(ge=1)] = 1  # stepwise: guided attempts of a query launched side by side
    # stepwise: plain attempts first where all failed in the iteration before; the k if one succeeds
    probes: Annotated[int, Field(ge=1)] = 2
    # bayes: believed pass rate below which a query gets help, or rest where there is none
    hopeless: Annotated[float, Field(ge=0, lt=1)] = 0.05
    saturated: Annotated[float, Field(gt=0, le=1)] = (
        0.95  # bayes: believed pass rate at an iteration's start from which a query may be skipped
    )
    skip: Annotated[float, Field(ge=0, le=0.9)] = 0.75  # bayes: probability of that; the rest is sampled, so nothing is forgotten unseen
    explore: Annotated[int, Field(ge=1)] = 1  # bayes: plain attempts that even a hopeless query gets in every iteration
    discount: Annotated[float, Field(gt=0, le=1)] = 0.5  # bayes: what an attempt is worth one iteration later


Rung = Literal["cue", "short", "long", "answer", "rationale"]


class Guidance(Section):
    kind: (
        Literal[
            "none",
            "answer_driven",
            "rationale_driven",
            "interactive",
            "state_reset",
            "adaptive",
            "ladder",
            "own_prefix",
            "own_correction",
            "cue",
        ]
        | None
    ) = None  # null = the strategy's
    mode: Literal["steps", "paper"] = "steps"  # state_reset: cut at steps before the answer, or as the paper did
    template: str | None = None  # answer_driven, rationale_driven, interactive, own_correction, cue: own wording; null = ours
    controller: Literal["moving", "curve"] = "curve"  # adaptive, own_prefix: what chooses the size of the next opening
    target: Annotated[float, Field(gt=0, lt=1)] = 0.7  # controller curve: the success rate that is often enough
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)] = ("cue", "short", "long", "answer", "rationale")  # ladder: any may be left out
    templates: dict[Literal["cue", "answer", "rationale"], str] = {}  # ladder: own wording of these rungs
    sham: bool | None = None  # control: hints are made from another query's answer or rationale; null = the strategy's

    @property
    def continues(self) -> bool:
        """Whether responses are continued from something given, which not every engine can."""
        return self.kind in ("state_reset", "adaptive", "own_prefix") or (
            self.kind == "ladder" and not {"short", "long"}.isdisjoint(self.rungs)
        )

    @property
    def asks(self) -> bool:
        """Whether a teacher is asked."""
        return self.kind in ("interactive", "own_correction", "cue") or (self.kind == "ladder" and "cue" in self.rungs)

    @property
    def needs_rationales(self) -> bool:
        """Whether it has nothing to give for a query without a reference rationale."""
        alone = self.kind == "ladder" and {"short", "long", "rationale"}.issuperset(self.rungs)
        return self.kind in ("state_reset", "rationale_driven", "adaptive") or alone


class Teacher(Section):
    """Any OpenAI-compatible server, or the model itself. The key is read from the environment and never stored."""

    kind: Literal["server", "self"] = "server"  # self = the model that samples, on the run's own engine; then only the last two keys count
    url: str = ""
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Annotated[int, Field(ge=1)] = 8
    retries: Annotated[int, Field(ge=0)] = 5  # with exponential backoff
    timeout: Annotated[float, Field(gt=0)] = 120.0  # seconds per request
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 512

    @model_validator(mode="after")
    def _check(self) -> Teacher:
        for key in ("url", "model"):
            if self.kind == "server" and not getattr(self, key):
                raise ValueError(
                    f"missing key {key!r}; a teacher is {{url: http://.../v1, model: NAME}}, or {{kind: self}} for the model itself"
                )
        _no_login(self.url)
        return self


class TransformersEngine(Section):
    kind: Literal["transformers"] = "transformers"
    device: str = "auto"  # auto = cuda if there is one, else cpu
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto = bfloat16 on cuda, float32 on cpu
    max_rows: Annotated[int, Field(ge=1)] = 128  # sequences decoded together
    max_batch_tokens: Annotated[int, Field(ge=1)] = 262_144  # bound on rows x longest sequence in the KV cache
    max_length: Annotated[int, Field(ge=2)] | None = None  # prompt + response; null = the model's context
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )
    replicas: Annotated[int, Field(ge=1)] = 1  # copies of the model behind one queue; several: one process and one GPU each

    @model_validator(mode="after")
    def _check(self) -> TransformersEngine:
        if self.replicas > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"replicas: {self.replicas} copies get a GPU each, and device names one ({self.device}); use device: cuda, or replicas: 1"
            )
        return self


class VllmEngine(Section):
    """Offline vLLM in processes of its own, new ones for every model; their GPU memory is free when it closes."""

    kind: Literal["vllm"] = "vllm"
    python: str | None = None  # interpreter of the environment that has vllm; null = this one
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_rows: Annotated[int, Field(ge=1)] = 256  # sequences decoded together (max_num_seqs)
    max_length: Annotated[int, Field(ge=2)] | None = None  # prompt + response (max_model_len); null = the model's context
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    replicas: Annotated[int, Field(ge=1)] = 1  # copies of the model behind one queue, each a process with tensor_parallel GPUs
    options: dict[str, Any] = {}  # further arguments of vLLM's engine, as it spells them
    start_timeout: Annotated[float, Field(gt=0)] = 900.0  # seconds until it must be ready
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )

    @model_validator(mode="after")
    def _check(self) -> VllmEngine:
        if "data_parallel_size" in self.options:
            raise ValueError(f"options: data_parallel_size is `replicas: {self.options['data_parallel_size']}` here, beside `kind`")
        return self


class OpenAIEngine(Section):
    """OpenAI-compatible servers behind one queue. With `launch`, they are started for every model; else they must serve it by themselves."""

    kind: Literal["openai"] = "openai"
    url: str | Annotated[tuple[str, ...], Field(min_length=1)]  # for example http://127.0.0.1:8000/v1; or several
    served_model: str | None = None  # the name the server knows the model by; null = the model's path
    api: Literal["completions", "chat"] = "completions"  # chat cannot continue a given prefix
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Annotated[int, Field(ge=1)] = 64  # requests in flight at most, per server; less after 429 and 503
    retries: Annotated[int, Field(ge=0)] = 5  # with exponential backoff and jitter
    timeout: Annotated[float, Field(gt=0)] = 600.0  # seconds per request
    launch: str | None = None  # command that serves a model at `url`, with {model}, and {port} or {index} where there are several
    start_timeout: Annotated[float, Field(gt=0)] = 900.0  # seconds until a launched server must answer
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )

    @model_validator(mode="after")
    def _check(self) -> OpenAIEngine:
        for url in (self.url,) if isinstance(self.url, str) else self.url:
            _no_login(url)
        return self


class ScriptedEngine(Section):
    kind: Literal["scripted"] = "scripted"
    function: str  # `module:function` or `file.py:function`: (request, model path) -> str or Completion
    score: str | None = None  # likewise, to score: (prompt, completion, model path) -> log-probability of every id of the completion
    max_rows: Annotated[int, Field(ge=1)] = 16
    shuffle: int | None = None  # a seed: complete requests in a random order (for tests)
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )
    entropy: str | None = (
        None  # likewise: (prompt ids, completion ids) -> the entropy at every completion token, for train.on_given: entropy
    )


Single = Annotated[TransformersEngine | VllmEngine | OpenAIEngine | ScriptedEngine, Field(discriminator="kind")]


class RayEngine(Section):
    """Copies of any other engine as actors of a Ray cluster, behind one queue."""

    kind: Literal["ray"] = "ray"
    of: Single  # a kind, or the whole section of that engine
    replicas: Annotated[int, Field(ge=1)] = 1
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = (
        None  # of one replica; null = a CPU, and its GPUs where the cluster has any
    )
    address: str | None = None  # host:port of the head, or auto; null = RAY_ADDRESS, the cluster of this machine, or a new one on it
    may_grow: bool = False  # nodes with these resources may come only when asked for (an autoscaler): wait for them
    options: dict[str, Any] = {}  # further options of Ray's actors, as it spells them: runtime_env, label_selector
    stall: Annotated[float, Field(ge=0)] = 0.0  # as for the other engines; never by default, for a cluster may keep its users waiting

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("of"), str):
            return {**data, "of": {"kind": data["of"]}}
        return data


Engine = Annotated[TransformersEngine | VllmEngine | OpenAIEngine | ScriptedEngine | RayEngine, Field(discriminator="kind")]


class Grading(Section):
    workers: Annotated[int, Field(ge=1)] = 1  # killable processes for answers that need symbolic mathematics
    timeout: Annotated[float, Field(gt=0)] = 5.0  # seconds per response
    actors: Annotated[int, Field(ge=0)] | None = (
        None  # engine ray: how many actors grade, each with `workers`; null = one per node, 0 = the driver
    )
    allow_unisolated_programs: bool = False  # run model-written programs without a sandbox where none is installed


Weight = Annotated[float, Field(ge=0, le=1)]


class Gate(Section):
    """Which guided samples are trained on (docs/curation.md)."""

    reliance: Literal["none", "filter", "choose", "weight"] = "none"  # hint reliance, by an engine that scores (transformers)
    threshold: Annotated[float, Field(le=0)] = -0.1  # filter: guided samples with less, in nats per token, are dropped
    best: Annotated[int, Field(ge=1)] = 1  # choose: of a query's accepted guided samples those with the most
    temperature: Annotated[float, Field(gt=0)] = 0.1  # weight: exp(min(reliance, 0) / temperature)
    leaks: tuple[Literal["mention", "early_answer", "copy", "steps"], ...] = ()  # guided samples with one are dropped
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
    floor: Annotated[int, Field(ge=0)] = 0  # a query with fewer rows (but at least one) has them repeated up to this
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
    micro_batch_size: Annotated[int, Field(ge=1)] = 8  # rows per forward pass; the largest divisor of batch_size up to this is used
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


class Evaluate(Section):
    tasks: list[Task] = []  # test sets: evaluated at the end only, on the final and on the chosen iteration
    overlap: Literal["leave_out", "count"] = "leave_out"  # test questions that are also training questions: left out, or only counted
    validation: Annotated[float, Field(ge=0)] = 0.05  # cut from the training queries; below 1 a share, else a number
    trajectory: bool = False  # evaluate the test sets after every iteration, for studies; nothing is ever chosen on them
    pass_at_k: tuple[Annotated[int, Field(ge=1)], ...] = (1,)  # 1 = greedy accuracy; more = also draws max(k) samples, for pass@k and maj@k
    avg_at_k: Annotated[int, Field(ge=0)] = 0  # accuracy = mean over k samples, for models that should not decode greedily; 0 = greedy
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None  # null = sample.max_new_tokens
    perplexity_rows: Annotated[int, Field(ge=0)] = 128  # references, and rows of each training set, scored under the base model; 0 = none


class Monitor(Section):
    """The tail monitor: what happens when it raises an alarm (docs/curation.md)."""

    on_alarm: Literal["off", "warn", "stop", "rollback"] = "warn"  # rollback: the rows are not trained on, the best earlier model goes on
    threshold: Annotated[float, Field(gt=0)] = 3.2  # z from which a change is more than chance; the default is calibrated
    least: Annotated[float, Field(ge=0)] = 0.05  # smaller changes raise no alarm


class Cost(Section):
    """What `--dry-run` knows of the hardware (formulas: gsi/cost.py); nothing else reads it."""

    gpu: Literal["h100", "a100-80gb", "a100-40gb", "l4", "rtx4090", "rtx3090"] | None = None
    gpus: Annotated[int, Field(ge=1)] = 1  # that are paid for
    price_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    decode_tokens_per_second: Annotated[float, Field(gt=0)] | None = None  # of one engine, measured; null = by formula
    train_tokens_per_second: Annotated[float, Field(gt=0)] | None = None  # of one training process, measured; null = by formula
    start_seconds: Annotated[float, Field(ge=0)] | None = None  # per engine and per training; null = 60


class Config(Section):
    model: str  # directory or hub id of a causal LM, or `lab:chain` for the tiny model of the demo
    output_dir: str  # {strategy} stands for the strategy's name
    preset: str | None = None  # settings of a model family and mode (gsi/presets.py); keys of your own win
    dimensions: Dimensions | None = None
    seed: int = 0
    iterations: Annotated[int, Field(ge=1)] = 4
    strategy: str = "vanilla"
    accept: Literal["answer", "steps"] = "answer"
    control: bool = False  # a control arm may train on rows that are not correct
    tasks: Annotated[list[Task], Field(min_length=1)]
    warm_start: WarmStart | None = None
    strata: Strata = Strata()
    prompt: Prompt = Prompt()
    sample: Sample = Sample()
    allocation: Allocation = Allocation()
    guidance: Guidance = Guidance()
    teacher: Teacher | None = None
    engine: Engine = TransformersEngine()
    grading: Grading = Grading()
    curate: Curate = Curate()
    train: Train = Field(default_factory=lambda: Train.model_validate({}))
    evaluate: Evaluate = Evaluate()
    monitor: Monitor = Monitor()
    cost: Cost = Cost()
    mirror: Annotated[str, Field(min_length=1)] | None = (
        None  # shared folder or URL (s3://, gs://, hdfs://) that every finished stage is copied to (docs/cluster.md)
    )
    keep_models: Literal["last", "best+last", "all"] = "best+last"
    report_to: Literal["none", "tensorboard", "wandb", "trackio", "mlflow"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _resolve_strategy(cls, data: Any) -> Any:
        """Fills allocation.kind, guidance.kind and sample.max_extra from the strategy, so that config.yaml is complete."""
        if not isinstance(data, Mapping):
            return data
        data = _defaults(dict(data))
        name = data.get("strategy", "vanilla")
        if name not in STRATEGIES:
            raise ValueError(f"strategy: unknown {name!r}{_nearest(str(name), STRATEGIES)}; there are {', '.join(STRATEGIES)}")
        chosen = STRATEGIES[name]
        if isinstance(data.get("output_dir"), str):
            data["output_dir"] = data["output_dir"].replace("{strategy}", name)
        entries = data.get("tasks")
        programs = isinstance(entries, list) and bool(entries) and all(isinstance(t, Mapping) and t.get("programs") for t in entries)
        if isinstance(data.get("engine"), Mapping):
            data["engine"] = {"kind": "transformers", **data["engine"]}
        for section, key, value in (
            ("allocation", "kind", chosen.allocation),
            ("guidance", "kind", chosen.guidance),
            ("guidance", "sham", chosen.sham),
            ("sample", "max_extra", chosen.max_extra_programs if programs and chosen.max_extra_programs is not None else chosen.max_extra),
            ("curate", "references", chosen.references),
            ("curate", "verdicts", chosen.verdicts),
            ("curate", "match", chosen.match),
        ):
            part = data.get(section, {})
            if isinstance(part, Mapping) and part.get(key) is None:
                data[section] = {**part, key: value}
        if chosen.asks_itself and data.get("teacher") is None:
            data["teacher"] = {"kind": "self"}
        return data

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.guidance.asks and self.teacher is None:
            what = "guidance `ladder` with the rung `cue`" if self.guidance.kind == "ladder" else f"guidance `{self.guidance.kind}`"
            raise ValueError(
                f"teacher: {what} needs one; add `teacher: {{url: http://.../v1, model: NAME}}`, or `teacher: {{kind: self}}` for the model itself"
            )
        if len(set(self.guidance.rungs)) < len(self.guidance.rungs):
            raise ValueError(
                f"guidance.rungs: {', '.join(self.guidance.rungs)} names a rung twice; each once, in the order they are climbed"
            )
        if self.guidance.continues and self.prompt.thinking and (self.guidance.kind != "state_reset" or self.prompt.thinking == "strip"):
            raise ValueError(
                f"prompt.thinking: with guidance {self.guidance.kind} the opening stands in the thinking section, which `strip` would remove from "
                "training; use keep with state_reset, or a guidance that works by the question (answer_driven, rationale_driven)"
            )
        if self.guidance.sham and self.guidance.kind not in ("answer_driven", "rationale_driven", "state_reset"):
            raise ValueError(
                f"guidance.sham: guidance `{self.guidance.kind}` takes nothing from the references that could be exchanged; leave it out"
            )
        if not self.curate.verdicts and not self.control:
            raise ValueError(
                "control: rows are drawn whatever their verdict (strategy random_kept, or curate.verdicts: false); say `control: true` if you mean it"
            )
        if self.curate.match and not self.curate.like:
            raise ValueError(f"curate.like: `match: {self.curate.match}` needs the folder of the run whose rows are matched")
        if self.train.kind == "scripted" and not self.train.function:
            raise ValueError("train.function: `kind: scripted` needs one, as module:function")
        if self.train.replay and self.train.data == "accumulate":
            raise ValueError(
                "train.replay: with data: accumulate every earlier row is there already; set data: replace, or leave replay out"
            )
        if self.train.processes > 1 and self.train.parallel == "single":
            raise ValueError(
                f"train.parallel: `single` with {self.train.processes} processes; use ddp, fsdp2, zero2 or zero3, or processes: 1"
            )
        several = self.train.interpolate is not None and isinstance(self.train.interpolate.weight, tuple)
        if several and not self.evaluate.validation:
            raise ValueError(
                "train.interpolate: several weights are chosen from on the validation split; set evaluate.validation, or one weight"
            )
        weights = [task.weight for task in self.tasks]
        if any(weights) and (None in weights or len({task.name for task in self.tasks}) < len(self.tasks)):
            raise ValueError("tasks: a mixture gives every task a name and a weight of its own; complete them, or leave all weights out")
        for i, task in enumerate((*self.tasks, *self.evaluate.tasks)):
            where = f"tasks[{i}]" if i < len(self.tasks) else f"evaluate.tasks[{i - len(self.tasks)}]"
            if task.shuffle_options and i >= len(self.tasks):
                raise ValueError(f"{where}.shuffle_options: evaluation shows every question as it is; leave it out")
            if task.weight and i >= len(self.tasks):
                raise ValueError(f"{where}.weight: test sets are not mixed; leave it out")
            if task.shuffle_options and task.programs:
                raise ValueError(
                    f"{where}.shuffle_options: not with programs: code written for another order of the options would be trained with the plain "
                    "question, and cannot be mapped back; leave one of the two out"
                )
            if task.path and task.hub:
                raise ValueError(f"{where}: has both path and hub; keep one")
        if self.sample.repetition_stop and not isinstance(self.drawing, TransformersEngine):
            raise ValueError(f"sample.repetition_stop: engine {self.drawing.kind} cannot do this; engine transformers can")
        if isinstance(self.drawing, OpenAIEngine):
            self._check_server(self.drawing)
        if self.monitor.on_alarm == "rollback" and (self.keep_models != "all" or not self.evaluate.validation):
            raise ValueError(
                "monitor.on_alarm: rollback goes back to the best earlier model, which needs keep_models: all and evaluate.validation above 0"
            )
        scores = isinstance(self.drawing, TransformersEngine) or (isinstance(self.drawing, ScriptedEngine) and self.drawing.score)
        by_likelihood = self.curate.upweight is not None and self.curate.upweight.by == "likelihood"
        if not scores and (by_likelihood or self.curate.gate.reliance != "none"):
            key = "curate.upweight.by: likelihood" if by_likelihood else f"curate.gate.reliance: {self.curate.gate.reliance}"
            raise ValueError(
                f"{key} needs an engine that scores, and {self.drawing.kind} does not; transformers does, and scripted with engine.score"
            )
        return self

    def _check_server(self, engine: OpenAIEngine) -> None:
        """What a server could not do, or would do with the wrong model."""
        if engine.api == "chat" and self.guidance.continues:
            raise ValueError(
                f"engine.api: guidance {self.guidance.kind} continues a given prefix, which `chat` cannot; use api: completions, or engine kind transformers or vllm"
            )
        if engine.api == "chat" and self.prompt.template in ("auto", "chat"):
            raise ValueError(
                "prompt.template: with engine.api `chat` the server applies the chat template; set prompt.template: '{question}', or use api: completions"
            )
        if len(self.sample.stop) > 4:
            raise ValueError(
                f"sample.stop: OpenAI-compatible servers take at most 4, found {len(self.sample.stop)}; use fewer, or another engine kind"
            )
        if engine.launch is not None and "{model}" not in engine.launch:
            raise ValueError(
                "engine.launch: lacks {model}, so it would serve the same model in every iteration; put {model} where the model's path goes"
            )
        urls = (engine.url,) if isinstance(engine.url, str) else engine.url
        if len(set(urls)) < len(urls):
            raise ValueError("engine.url: names a server twice; each once")
        if engine.launch is not None and len(urls) > 1 and "{port}" not in engine.launch and "{index}" not in engine.launch:
            raise ValueError(
                f"engine.launch: lacks {{port}}, and {len(urls)} servers cannot share one; put {{port}} (of the server's url) where the port goes, "
                "and {index} (0, 1, ...) where its GPU is chosen"
            )
        others = self.iterations > 1 or self.warm_start is not None or self.evaluate.validation > 0 or bool(self.evaluate.tasks)
        if engine.served_model is not None and engine.launch is None and others:
            raise ValueError(
                f"engine.served_model: a server that always serves {engine.served_model!r} would answer for the trained models too; "
                "set engine.launch: a command with {model} that starts one for every model, or leave served_model out and restart the server for every "
                "model (only `iterations: 1` with `evaluate: {validation: 0}` and no warm start draws from the base model alone)"
            )

    @property
    def drawing(self) -> TransformersEngine | VllmEngine | OpenAIEngine | ScriptedEngine:
        """The engine that draws, wherever it runs."""
        return self.engine.of if isinstance(self.engine, RayEngine) else self.engine

    def dump(self) -> dict[str, Any]:
        """Plain values, keys spelled as in YAML."""
        return self.model_dump(mode="json", by_alias=True)


def _defaults(data: dict[str, Any]) -> dict[str, Any]:
    """What other keys imply: the preset's settings, and a learning rate ten times the full one for LoRA (where none is given)."""
    if (preset := data.get("preset")) is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"preset: unknown {preset!r}{_nearest(str(preset), PRESETS)}; there are {', '.join(PRESETS)}")
        data = fill(data, preset)
    train, warm = data.get("train"), data.get("warm_start")
    if isinstance(train, Mapping) and train.get("method") in ("lora", "qlora"):
        data["train"] = {"learning_rate": 1e-4, **train}
        if isinstance(warm, Mapping):
            data["warm_start"] = {"learning_rate": 1e-4, **warm}
    return data


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file (or takes a mapping), applies `a.b=c` overrides and checks everything.

    Values of overrides are YAML: `sample.k=4`, `train.from=last`, `tasks.0.path=x.jsonl`, `warm_start=null`.
    Raises ConfigError.
    """
    if isinstance(source, Mapping):
        data, name = dict(source), "config"
    else:
        name = str(source)
        try:
            data = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{name}: no such file") from None
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"{name}: cannot be read: {e}") from None
        except yaml.YAMLError as e:
            raise ConfigError(f"{name}: not valid YAML: {e}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{name}: expected a mapping of keys to values, found {type(data).__name__}")
    for item in overrides:
        _override(data, item)
    try:
        return Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError("\n".join(f"{name}: {explain(err)}" for err in e.errors())) from None


def _override(data: dict[str, Any], item: str) -> None:
    path, eq, raw = item.partition("=")
    if not eq or not path:
        raise ConfigError(f"override {item!r}: expected key=value, for example sample.k=4")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as e:
        raise ConfigError(f"override {item!r}: the value is not valid YAML: {e}") from None
    node: Any = data
    *parents, last = path.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[_index(node, part, item)]
            continue
        if node.get(part) is None:
            node[part] = {}
        elif isinstance(node[part], Mapping):
            node[part] = dict(node[part])
        elif isinstance(node[part], Sequence) and not isinstance(node[part], str):
            node[part] = [dict(x) if isinstance(x, Mapping) else x for x in node[part]]
        node = node[part]
        if not isinstance(node, dict | list):
            raise ConfigError(f"override {item!r}: {part!r} holds {node!r}, not a section")
    if isinstance(node, list):
        node[_index(node, last, item)] = value
    else:
        node[last] = value


def _index(node: list[Any], part: str, item: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"override {item!r}: {part!r} is no index of a list of {len(node)}")
    return int(part)


def _nearest(word: str, known: Any) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def explain(error: Any, root: type[BaseModel] | None = None) -> str:
    """One line for one pydantic error: key, what is wrong, what is allowed."""
    loc = [p for p in error["loc"] if p not in ("transformers", "vllm", "openai", "scripted", "ray")]  # tags of the engine union
    where = ".".join(str(p) for p in loc)
    if error["type"] == "extra_forbidden":
        known = _keys_at(root or Config, list(error["loc"][:-1]))
        others = [k.model_fields["kind"].default for k in typing.get_args(typing.get_args(Engine)[0]) if loc[-1] in k.model_fields]
        having = f"; engine {' and '.join(others)} has it" if loc[0] == "engine" and others else ""
        return f"unknown key {where!r}{_nearest(str(loc[-1]), known)}{having}; known here: {', '.join(known)}"
    if error["type"] == "missing":
        return f"missing key {where!r}"
    if error["type"] == "value_error":
        return (f"{where}: " if where else "") + str(error["ctx"]["error"])
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _keys_at(model: Any, path: list[Any]) -> list[str]:
    """The keys that the section at `path` knows (for messages)."""
    sections = [model]
    for part in path:
        found = []
        for section in sections:
            for name, info in section.model_fields.items():
                if part in (name, info.alias):
                    found += _sections_in(info.annotation)
        if found:
            sections = [s for s in found if s.model_fields] or sections
        else:  # a list index or a union tag
            tagged = [s for s in sections if "kind" in s.model_fields and s.model_fields["kind"].default == part]
            sections = tagged or sections
    return sorted({info.alias or name for s in sections for name, info in s.model_fields.items()})


def _sections_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in typing.get_args(annotation) for s in _sections_in(arg)]

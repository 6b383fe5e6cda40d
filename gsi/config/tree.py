"""The whole config: its sections by key, what a strategy or a preset fills in, and the checks across sections (`checks.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gsi.config import checks
from gsi.config.cost import Cost, Dimensions
from gsi.config.data import Evaluate, Grading, Strata, Task
from gsi.config.engines import Engine, OpenAIEngine, RayEngine, ScriptedEngine, TransformersEngine, VllmEngine
from gsi.config.sampling import Allocation, Guidance, Prompt, Sample, Teacher
from gsi.config.section import Section, nearest
from gsi.config.training import Curate, Monitor, Train, WarmStart
from gsi.presets import PRESETS, fill
from gsi.strategies import STRATEGIES


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
        if not isinstance(name, str) or name not in STRATEGIES:
            raise ValueError(f"strategy: unknown {name!r}{nearest(str(name), STRATEGIES)}; there are {', '.join(STRATEGIES)}")
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
        checks.check(self)
        return self

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
            raise ValueError(f"preset: unknown {preset!r}{nearest(str(preset), PRESETS)}; there are {', '.join(PRESETS)}")
        data = fill(data, preset)
    train, warm = data.get("train"), data.get("warm_start")
    if isinstance(train, Mapping) and train.get("method") in ("lora", "qlora"):
        data["train"] = {"learning_rate": 1e-4, **train}
        if isinstance(warm, Mapping):
            data["warm_start"] = {"learning_rate": 1e-4, **warm}
    return data

"""A study file: a matrix of models, tasks, seeds and arms, every cell a `gsi run` of its own (`gsi study STUDY.yaml`).

    name: confirm
    output_dir: runs/confirm                # the run folders
    results: studies/confirm.jsonl          # one line per finished cell; what the findings are made from
    seeds: [1, 2, 3]
    models: {llama: "lab:dag:{seed}"}
    tasks:  {dag: {tasks: [{name: dag, args: {seed: "{seed}", per_level: 60}}]}}      # a patch of the config
    strategies: [vanilla, state_reset]      # an arm for each; `controls: true` adds the control arms
    arms: {brute_16: {strategy: brute_force, sample: {max_extra: 16}}}                # own arms, patches too
    config: {...}                           # what all cells share

Texts may hold {seed}, {task}, {fresh} (the seed of data that no cell trains on), {again} (of data that no other test has either), {teacher} (the url of the study's teacher) and {run:ARM} (the run
folder of another arm of the same model, task and seed).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from gsi.config import ConfigError, load_config
from gsi.config.reading import check_data, explain
from gsi.config.section import Section
from gsi.presets import merge
from gsi.strategies import CONTROLS, STRATEGIES

Measure = Literal["hard_accuracy", "easy_accuracy", "accuracy"]
FRESH = 1_000_000  # added to a seed: data that no cell trains on


class Contrast(Section):
    """A difference between two arms that is named before any seed is run."""

    a: str
    b: str  # the difference is a - b; of several, joined by `|`, the one that a is least ahead of
    task: str | None = None  # null = the first
    model: str | None = None  # null = the first
    measure: Measure = "hard_accuracy"
    margin: float = 0.0  # supported where the lower 95 % bound is above this (-0.02: not worse by more than two points)


class StudyTeacher(Section):
    """A stronger lab model behind a server, started and stopped by the study; `{teacher}` in a config is its url."""

    model: str  # lab:dag-strong:SEED
    port: Annotated[int, Field(ge=1, le=65535)] = 8177


class PassAt(Section):
    """pass@k of final models beside the initial one's, by level: what training made narrower or wider."""

    arms: Annotated[list[str], Field(min_length=1)]
    k: Annotated[int, Field(ge=1)] = 64
    draws: Annotated[int, Field(ge=1)] = 128
    per_level: Annotated[int, Field(ge=1)] = 20  # fresh queries
    margin: float = -0.02  # not worse by more than two points


class Again(Section):
    """Final models tested once more, greedily, on more fresh questions: where the study's own test sets are too small to tell."""

    arms: Annotated[list[str], Field(min_length=1)]
    than: str  # the arm that the others are compared with
    tasks: Annotated[list[dict[str, Any]], Field(min_length=1)]  # as under `tasks` of a config
    margin: float = -0.02  # not worse by more than two points

    @property
    def tested(self) -> list[str]:
        return list(dict.fromkeys((self.than, *self.arms)))


def _once(seeds: list[int]) -> list[int]:
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise ValueError(f"{twice[0]} is named twice; a seed is one run of every arm")
    return seeds


class Study(Section):
    name: str
    output_dir: str
    results: str
    seeds: Annotated[list[int], Field(min_length=1), AfterValidator(_once)]
    models: Annotated[dict[str, str | dict[str, Any]], Field(min_length=1)]  # a model, or a patch of the config with `model`
    tasks: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    strategies: list[str] = Field([])
    controls: bool = False
    guided: str = "state_reset"  # the arm that matched controls are matched to
    arms: dict[str, dict[str, Any]] = Field({})
    config: dict[str, Any] = Field({})
    teacher: StudyTeacher | None = None
    draws: Annotated[int, Field(ge=0)] = 0  # of the initial model per training query, used for strata only; 0 = none
    equal_tokens: list[str] = Field([])  # arms whose last training set is cut to equal trained tokens and steps, and trained again
    pass_at: PassAt | None = None
    again: Again | None = None
    contrasts: Annotated[list[Contrast], Field(max_length=5)] = Field([])
    factors: dict[str, list[str]] = Field({})  # what a factorial crosses -> the arms that have it; all others have it not
    beside: dict[str, str] = Field({})  # arm -> the arm that the table of differences shows it beside; the first for all others
    exclusions: list[str] = Field([])  # in words, stated beforehand
    closed: str = ""  # why it was stopped before its end: nothing of it is run any more, its results stand
    minutes: dict[str, float] = Field({})  # assumed per cell by arm, `default` for the others; measured ones count once there are any


@dataclass(frozen=True)
class Cell:
    """One run of the matrix, or one of its helpers: `base` (a lab model), `draws` (strata), `equal:ARM`, `pass:ARM` and `again:ARM` (ARM may be `base`, the initial model)."""

    model: str
    task: str
    seed: int
    arm: str
    config: dict[str, Any] = field(compare=False, hash=False)
    needs: tuple[str, ...] = ()  # keys of cells that have to be done first

    @property
    def key(self) -> str:
        return f"{self.model}/{self.task}/s{self.seed}/{self.arm}"

    @property
    def draws_only(self) -> bool:
        """Whether plain attempts of one model are all that is run."""
        return self.arm == "draws" or self.of_model

    @property
    def of_model(self) -> bool:
        """Whether they are of a model that another cell leaves behind (or of the base)."""
        return self.arm.startswith(("pass:", "again:"))

    @property
    def mark(self) -> str:
        """Identifies the config, wherever its files lie."""
        text = json.dumps({k: v for k, v in self.config.items() if k != "output_dir"}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_study(path: str | Path) -> tuple[Study, str]:
    """The study and the hash of its file. Raises ConfigError for what could not run: all cells are checked, nothing is started."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from None
    check_data(data, str(path))
    try:
        study = Study.model_validate(data)
    except ValidationError as e:
        raise ConfigError("\n".join(f"{path}: {explain(err, Study)}" for err in e.errors())) from None
    known = arms(study)
    if not known:
        raise ConfigError(f"{path}: no arms; name some under strategies or arms")
    for i, contrast in enumerate(study.contrasts):
        for name in (contrast.a, *contrast.b.split("|")):
            if name not in known:
                raise ConfigError(f"{path}: contrasts[{i}]: unknown arm {name!r}; there are {', '.join(known)}")
    asked: dict[str, Sequence[str]] = {f"factors.{name}": having for name, having in study.factors.items()}
    asked |= {
        "equal_tokens": study.equal_tokens,
        "pass_at.arms": study.pass_at.arms if study.pass_at else (),
        "again.arms": study.again.arms if study.again else (),
        "again.than": (study.again.than,) if study.again else (),
        "beside": [*study.beside, *study.beside.values()],
    }
    for key, names in asked.items():
        for name in names:
            if name not in known:
                raise ConfigError(f"{path}: {key}: unknown arm {name!r}; there are {', '.join(known)}")
    for (one, having), (other, too) in combinations(study.factors.items(), 2):
        if any(not {arm for arm in known if (arm in having, arm in too) == case} for case in product((True, False), repeat=2)):
            raise ConfigError(
                f"{path}: factors: {one} and {other} are not crossed: there have to be arms with both, with either and with none"
            )
    return study, hashlib.sha256(text.encode()).hexdigest()[:12]


def arms(study: Study) -> dict[str, dict[str, Any]]:
    """Arm name -> patch of the config. Raises ConfigError for an unknown strategy."""
    found: dict[str, dict[str, Any]] = {}
    for name in [*study.strategies, *(CONTROLS if study.controls else ())]:
        if name not in STRATEGIES:
            raise ConfigError(f"strategies: unknown {name!r}; there are {', '.join(STRATEGIES)}")
        chosen = STRATEGIES[name]
        patch: dict[str, Any] = {"strategy": name}
        if chosen.match:
            patch["curate"] = {"like": f"{{run:{study.guided}}}"}
        if not chosen.verdicts:
            patch["control"] = True
        if chosen.allocation == "none":
            patch["iterations"] = 1  # every iteration would train the base on the same rows
        found[name] = patch
    return found | study.arms


def shared(study: Study, model: str, task: str) -> dict[str, Any]:
    """What the cells of one model and task share, whatever their arm."""
    entry = study.models[model]
    return merge(study.config, merge({"model": entry} if isinstance(entry, str) else entry, study.tasks[task]))


def cells(study: Study, path: str = "study") -> list[Cell]:
    """Every cell in the order it is run, seed by seed, each with a config that was checked. Raises ConfigError that names the cell.

    So an unfinished study has whole seeds: every arm, and its helpers while the run folders that they need are there.
    """
    found: list[Cell] = []
    known = arms(study)
    taught = {"teacher": f"http://127.0.0.1:{study.teacher.port}/v1"} if study.teacher else {}
    for seed in study.seeds:
        for model, entry in study.models.items():
            for task in study.tasks:
                place = f"{model}/{task}/s{seed}"
                folder = Path(study.output_dir) / model / task / f"s{seed}"
                fill = filler(
                    {"seed": seed, "fresh": seed + FRESH, "again": seed + 2 * FRESH, "task": task}
                    | taught
                    | {f"run:{a}": str(folder / a) for a in known}
                )
                name = entry if isinstance(entry, str) else entry.get("model")
                if not isinstance(name, str):
                    raise ConfigError(f"{path}: models.{model}: no `model` in it")
                base, common = fill(name), shared(study, model, task)
                first: tuple[str, ...] = ()
                if base.startswith("lab:"):
                    first = (f"base/{base}",)
                    if not any(c.key == first[0] for c in found):
                        found.append(Base(model, task, seed, "base", {"model": base}))
                for arm, own in known.items():
                    config = merge(merge({"seed": seed}, common), own)
                    config = fill(config) | {"model": base, "output_dir": str(folder / arm)}
                    try:
                        load_config(config)
                    except ConfigError as e:
                        raise ConfigError(f"{path}: {place}/{arm}: {e}") from None
                    like = (config.get("curate") or {}).get("like")
                    needs = tuple(f"{place}/{a}" for a in known if like == str(folder / a))
                    if like and not needs:
                        raise ConfigError(
                            f"{path}: {place}/{arm}: curate.like: {like} is the folder of no arm of this study; add the arm {study.guided}"
                        )
                    found.append(Cell(model, task, seed, arm, config, first + needs))
                plain = merge({"seed": seed}, common) | {"strategy": "vanilla", "iterations": 1}
                if study.draws:
                    config = fill(merge(plain, {"sample": {"k": study.draws}})) | {"model": base, "output_dir": str(folder / "draws")}
                    found.append(Cell(model, task, seed, "draws", config, first))
                for arm in study.equal_tokens:
                    source = next(c for c in found if c.key == f"{place}/{arm}")
                    needs = tuple(f"{place}/{a}" for a in study.equal_tokens)
                    found.append(
                        Cell(model, task, seed, f"equal:{arm}", source.config | {"output_dir": str(folder / f"equal-{arm}")}, needs)
                    )
                helpers: dict[str, tuple[dict[str, Any], list[str]]] = {}
                if study.pass_at:
                    helpers["pass"] = (_fresh(plain, study.pass_at, path), study.pass_at.arms)
                if study.again:
                    greedy = {"sample": {"k": 1, "temperature": 0.0}, "evaluate": {"tasks": []}}
                    helpers["again"] = (
                        merge(plain, greedy) | {"tasks": study.again.tasks},
                        study.again.tested,
                    )
                for kind, (patched, names) in helpers.items():
                    for arm in ("base", *names):
                        run = next((c for c in found if c.key == f"{place}/{arm}"), None)
                        trained = str(folder / arm / f"iter_{load_config(run.config).iterations}" / "model") if run else base
                        needs = (run.key,) if run else first
                        config = fill(patched) | {"model": trained, "output_dir": str(folder / f"{kind}-{arm}")}
                        found.append(Cell(model, task, seed, f"{kind}:{arm}", config, needs))
    return found


@dataclass(frozen=True)
class Base(Cell):
    @property
    def key(self) -> str:
        return f"base/{self.config['model']}"


def _fresh(plain: dict[str, Any], settings: PassAt, path: str) -> dict[str, Any]:
    """A config that draws from fresh queries of the task that is trained on. Raises ConfigError where the study tests on none."""
    name = plain["tasks"][0]["name"]
    tests = [t for t in plain.get("evaluate", {}).get("tasks", ()) if t["name"] == name and "args" in t]
    if not tests:
        raise ConfigError(f"{path}: pass_at: no generated test set of {name} under evaluate.tasks to draw from")
    few = [merge(t, {"args": {"per_level": settings.per_level}}) for t in tests]
    return merge(plain, {"sample": {"k": settings.draws}, "evaluate": {"tasks": []}}) | {"tasks": few}


def filler(values: dict[str, Any]) -> Callable[[Any], Any]:
    """Replaces {name} in every text of a nested value; a text that is nothing but one placeholder becomes the value itself."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v) for v in value]
        if not isinstance(value, str):
            return value
        for name, content in values.items():
            if value == f"{{{name}}}":
                return content
            value = value.replace(f"{{{name}}}", str(content))
        return value

    return fill

"""Builds the parts of a run from its config: data, tokenizer, engine, grader, guidance, trainer."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import itertools
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gsi import guidance, tasks
from gsi.asking import SelfTeacher
from gsi.config import Config, OpenAIEngine, RayEngine, ScriptedEngine, Single, TransformersEngine, VllmEngine
from gsi.engines.pool import Replicas, complain
from gsi.engines.process import in_process, share_of_gpus
from gsi.guidance.steps import split_steps
from gsi.hub import log_in, reachable
from gsi.mirror import Mirror
from gsi.prompts import Renderer
from gsi.tasks.overlap import Overlap, overlaps
from gsi.train.parallel import pick_device
from gsi.train.tracking import check as check_tracker
from gsi.types import Engine, Grader, GsiError, Guidance, Past, Query, Rollout, Sampling, Teacher, Trainer
from gsi.verify import STEPS, make_grader, with_programs
from gsi.verify.steps import check_steps


@dataclass(frozen=True)
class Data:
    """The queries of a run, checked and split."""

    train: list[Query]  # sampled and trained on
    validation: list[Query]  # cut from the same tasks, evaluated in the loop
    test: list[Query]  # evaluated at the end only
    hard: dict[str, tuple[int, ...]]  # task -> levels that count as hard
    problems: list[Any]  # rows left out, with file, line, field and reason
    fingerprints: dict[str, str]
    grader: Grader
    overlap: list[Overlap] = field(default_factory=list)  # test queries that are also training queries


def load_data(
    config: Config, queries: Sequence[Query] | None = None, check: Callable[..., Any] | None = None, planning: bool = False
) -> Data:
    """Loads the tasks, drops queries whose own answer does not verify, cuts the validation split.

    Args:
        queries: given in Python instead of by file; they belong to the config's only task.
        check: their checker, where the task names none.
        planning: what this machine lacks for sandboxes and training is no error; a plan may be made elsewhere.

    Raises GsiError when a file, an id or a strategy's needs make the run impossible.
    """
    if queries is not None:
        if len(config.tasks) != 1:
            raise GsiError(f"tasks: with queries given in Python there must be one task, found {len(config.tasks)}")
        queries = [replace(q, task=config.tasks[0].name) for q in queries]
        loaded = [tasks.from_queries(queries, config.tasks[0])]
    else:
        loaded = [tasks.load(t) for t in config.tasks]
    tests = [tasks.load(t) for t in config.evaluate.tasks]
    _unique_ids([t for data in loaded for t in data.queries], "tasks")
    _unique_ids([t for data in tests for t in data.queries], "evaluate.tasks")
    checks: dict[str, Any] = {t.name: t.check or check for t in (*config.tasks, *config.evaluate.tasks)}
    programs = {t.name for t in (*config.tasks, *config.evaluate.tasks) if t.programs}
    if mixed := programs & {t.name for t in (*config.tasks, *config.evaluate.tasks) if not t.programs}:
        raise GsiError(
            f"task {mixed.pop()}: `programs` is true in one place and false in another; say the same in tasks and evaluate.tasks"
        )
    workers, timeout = config.grading.workers, config.grading.timeout
    answers = make_grader(checks, workers, timeout)
    grader: Grader = answers
    try:
        own = {name for name, function in checks.items() if function}
        grader = with_programs(answers, () if planning else programs, workers, timeout, config.grading.allow_unisolated_programs, own)
        problems = [p for data in (*loaded, *tests) for p in data.problems]
        kept, bad = tasks.check_golds([q for data in loaded for q in data.queries], answers, own, programs)  # golds are no programs
        kept_tests, bad_tests = tasks.check_golds([q for data in tests for q in data.queries], answers, own, programs)
        kept = tasks.mix(kept, {t.name: t.weight for t in config.tasks if t.weight}, config.seed)
        overlap = _overlap(config, kept, kept_tests)
        if config.evaluate.overlap == "leave_out":
            gone = {o.query.id for o in overlap}
            kept_tests = [q for q in kept_tests if q.id not in gone]
        train, validation = tasks.split_validation(kept, config.evaluate.validation, config.seed)
        hard = {
            t.name: t.hard_levels or data.hard_levels
            for t, data in zip((*config.tasks, *config.evaluate.tasks), (*loaded, *tests), strict=True)
        }
        if not planning:
            _check_machine(config)
        _check_needs(config, train)
    except BaseException:
        grader.close()
        raise
    prints = {f"{i}:{t.name}": data.fingerprint for i, (t, data) in enumerate(zip(config.tasks, loaded, strict=True))}
    prints |= {f"test {i}:{t.name}": data.fingerprint for i, (t, data) in enumerate(zip(config.evaluate.tasks, tests, strict=True))}
    return Data(train, validation, kept_tests, hard, problems + bad + bad_tests, prints, grader, overlap)


def _overlap(config: Config, train: Sequence[Query], tests: Sequence[Query]) -> list[Overlap]:
    """Test queries that are trained on. Raises GsiError for a test set that has no other ones."""
    if not tests:
        return []
    seen = [*train, *(warm_start_pool(config) if config.warm_start else ())]
    found = overlaps(seen, tests, exact_only={name for name, spec in tasks.TASKS.items() if spec.generated})
    if config.evaluate.overlap == "leave_out":
        gone = {o.query.id for o in found}
        for task in {q.task for q in tests}:
            if all(q.id in gone for q in tests if q.task == task):
                raise GsiError(
                    f"evaluate.tasks: every test question of {task} is also a training question; name other data (path, split), "
                    "or set evaluate.overlap: count to evaluate on them all the same"
                )
    return found


def _unique_ids(queries: Sequence[Query], where: str) -> None:
    seen: dict[str, str] = {}
    for q in queries:
        if q.id in seen:
            raise GsiError(f"{where}: the id {q.id!r} occurs in {seen[q.id]} and in {q.task}; ids must be unique over all tasks of a run")
        seen[q.id] = q.task


def _check_machine(config: Config) -> None:
    """Refuses what this machine lacks for training or tracking."""
    check_tracker(config.report_to)
    t = config.train
    if t.kind == "trl" and (t.device not in ("auto", "cpu") or t.processes > 1 or t.liger or t.method == "qlora" or t.parallel != "ddp"):
        pick_device(t.model_dump())  # now, not after an iteration's sampling


def _check_needs(config: Config, queries: Sequence[Query]) -> None:
    """Refuses a strategy or an acceptance rule that the data cannot serve."""
    kind = config.guidance.kind
    if config.guidance.needs_rationales and not any(q.rationale for q in queries):
        raise GsiError(
            f"guidance {kind} needs reference rationales, and no query has one; map the column (tasks[].columns.rationale), or use answer_driven, own_prefix or own_correction"
        )
    if config.curate.references != "none" and not any(q.rationale for q in queries):
        raise GsiError(
            f"curate.references: {config.curate.references} (strategy {config.strategy}) needs reference rationales, and no query has one; map the column "
            "(tasks[].columns.rationale)"
        )
    if config.accept == "steps":
        without = sorted({t.name for t in config.tasks if t.programs or (not t.check and not tasks.checks_steps(t.name))})
        if without:
            raise GsiError(
                f"accept: steps needs a step checker, and {', '.join(without)} has none; use accept: answer, or a check that sets steps_ok"
            )
    if config.warm_start and not config.warm_start.tasks and not any(q.rationale for q in queries):
        raise GsiError("warm_start needs reference rationales, and no query has one; name other data under warm_start.tasks")


# --------------------------------------------------------------------------------------- model, engine, trainer


def resolve_model(config: Config, progress: Callable[[int, int], None] | None = None) -> str:
    """The base model as a directory or hub id; `lab:NAME` is built on first use."""
    if config.model.startswith("lab:"):
        from gsi.lab.base import resolve

        return str(resolve(config.model, progress))
    return config.model


def load_tokenizer(config: Config, model: str) -> Any:
    """The tokenizer of the base model. Raises GsiError when there is none."""
    if isinstance(config.drawing, ScriptedEngine):
        from gsi.engines.scripted import ByteTokenizer

        return ByteTokenizer()
    from transformers import AutoTokenizer

    if "/" in model and not Path(model).exists() and model.startswith((".", "/", "~")):
        raise GsiError(f"model: {model} is no directory")
    try:
        reachable(model)
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError) as e:
        if "gated" in str(e):
            raise GsiError(f"model: {model} is gated: {log_in(model)}, or set model to a directory that has it") from e
        raise GsiError(
            f"model: {model!r} has no tokenizer that can be loaded, neither as a directory nor from the hub: {str(e).splitlines()[0]}"
        ) from e


def make_renderer(config: Config, tokenizer: Any) -> Renderer:
    p = config.prompt
    renderer = Renderer(tokenizer, p.template, p.instruction, p.chat_template_kwargs, p.thinking)
    if config.guidance.continues and renderer.may_think and not p.thinking:
        keep = "set keep (it opens the thinking section), or " if config.guidance.kind == "state_reset" else "set "
        raise GsiError(
            f"prompt.thinking: this model's template knows thinking sections, and guidance {config.guidance.kind} must know where its opening stands: {keep}"
            "prompt.chat_template_kwargs={enable_thinking: false} (it opens the answer)"
        )
    return renderer


def make_engine(config: Config, model: str, tokenizer: Any, say: Callable[[str], None] = complain) -> Engine:
    """The engine of the config: alone, or several behind one queue. `say` gets a line when one of several is lost."""
    settings = config.engine
    engine: Any
    if isinstance(settings, RayEngine):
        from gsi.engines.cluster import ray_replicas

        folder, root, there = Path(model).absolute(), Path(config.output_dir).absolute(), None
        if config.mirror and folder.is_relative_to(root):
            there = (config.mirror, folder.relative_to(root).as_posix())
        name = str(folder) if folder.is_dir() else model  # actors have another working directory
        engine = ray_replicas(settings, functools.partial(open_elsewhere, settings.of, name, tokenizer, folder.is_dir(), there), say)
    else:
        engine = open_engine(settings, model, tokenizer, say)
    needs = {
        "prefix": (
            config.guidance.continues,
            f"continue a given prefix, which guidance {config.guidance.kind} needs",
            "transformers, vllm and openai (api: completions)",
        ),
        "entropy": (
            config.train.on_given == "entropy",
            "measure the model's uncertainty, which train.on_given: entropy needs",
            "transformers",
        ),
    }
    for capability, (needed, what, others) in needs.items():
        if needed and capability not in engine.capabilities:
            engine.close()
            raise GsiError(f"engine {config.drawing.kind} cannot {what}; these engines can: {others}")
    return engine


def open_elsewhere(settings: Single, model: str, tokenizer: Any, is_folder: bool, mirrored: tuple[str, str] | None) -> Engine:
    """`open_engine` on another machine. A model that is a folder of the driver's must be there too, or in the mirror: (url, name)."""
    if is_folder and not Path(model).is_dir():
        if mirrored is None:
            raise GsiError(
                f"engine ray: {model} cannot be read on {socket.gethostname()}; set `mirror:` to a shared folder or URL that workers read models from, "
                "or put the model on a path that every node has"
            )
        url, name = mirrored
        model = str(Mirror(url).fetch(name, Path(tempfile.gettempdir()) / "gsi-models"))
    return open_engine(settings, model, tokenizer)


def open_engine(settings: Single, model: str, tokenizer: Any, say: Callable[[str], None] = complain) -> Engine:
    """An engine on this machine, or its replicas behind one queue."""
    makers: list[Callable[[], Any]]
    if isinstance(settings, TransformersEngine) and settings.replicas > 1:
        alone = functools.partial(open_engine, settings.model_copy(update={"replicas": 1}), model, tokenizer)
        gpus = settings.device != "cpu" and _sees_gpus()
        makers = [
            functools.partial(in_process, alone, f"transformers, replica {i}", share_of_gpus(i, 1) if gpus else {})
            for i in range(settings.replicas)
        ]
    elif isinstance(settings, TransformersEngine):
        from gsi.engines.transformers import TransformersEngine as Embedded

        return Embedded(
            model, tokenizer, settings.device, settings.dtype, settings.max_rows, settings.max_batch_tokens, settings.max_length
        )
    elif isinstance(settings, VllmEngine):
        from gsi.engines.vllm import VllmEngine as Vllm

        if settings.replicas == 1:
            return Vllm(settings, model, tokenizer)
        makers = [functools.partial(Vllm, settings, model, tokenizer, i) for i in range(settings.replicas)]
    elif isinstance(settings, OpenAIEngine):
        from gsi.engines.openai import OpenAIEngine as Server

        if isinstance(settings.url, str):
            return Server(settings, model, tokenizer)
        makers = [functools.partial(Server, settings, model, tokenizer, i) for i in range(len(settings.url))]
    else:
        from gsi.engines.scripted import ScriptedEngine as Scripted

        return Scripted(
            load_function(settings.function, "engine.function", "request model"),
            model,
            settings.max_rows,
            settings.shuffle,
            load_function(settings.score, "engine.score", "prompt completion model") if settings.score else None,
            load_function(settings.entropy, "engine.entropy", "prompt_ids completion_ids") if settings.entropy else None,
        )
    return Replicas(makers, say)


def _sees_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def make_teacher(config: Config) -> Teacher | None:
    """The teacher, asked once whether it is there. Raises GsiError when it is not."""
    if not config.guidance.asks or config.teacher is None or config.teacher.kind == "self":
        return None
    from gsi.guidance.teacher import OpenAITeacher

    teacher = OpenAITeacher(config.teacher)
    teacher.probe()
    return teacher


SELF_WORKERS = 64  # questions to the model itself that may be open at once; they wait in threads, the engine takes them as it has room


def make_self_teacher(config: Config, renderer: Renderer, model: str) -> SelfTeacher | None:
    """The model as its own teacher, where the guidance asks one and the config names no server."""
    t = config.teacher
    if not config.guidance.asks or t is None or t.kind != "self":
        return None
    sampling = Sampling(t.temperature, max_new_tokens=t.max_tokens, repetition_stop=config.sample.repetition_stop)
    return SelfTeacher(renderer, sampling, config.seed, model)


def make_guidance(
    config: Config,
    renderer: Renderer,
    teacher: Teacher | None,
    queries: Sequence[Query],
    past: Callable[[], Past] = dict,
    earlier: Callable[[str], Sequence[Rollout]] = lambda query_id: (),
) -> Guidance | None:
    return guidance.build(config, renderer, teacher, queries, past, earlier, _first_wrong)


def _first_wrong(query: Query, text: str) -> int | None:
    """Index of the first step whose equations do not hold, for tasks whose equations are checked."""
    if query.task not in STEPS:
        return None
    begun = itertools.accumulate(split_steps(text))
    return next((i for i, part in enumerate(begun) if check_steps(part, STEPS[query.task]) is False), None)


def make_trainer(config: Config) -> Trainer:
    if config.train.kind == "scripted":
        from gsi.train.scripted import ScriptedTrainer

        return ScriptedTrainer(load_function(config.train.function or "", "train.function", "job"))
    from gsi.train.launch import TrlTrainer

    return TrlTrainer()


def load_function(name: str, key: str, arguments: str = "") -> Callable[..., Any]:
    """`module:function` or `path/file.py:function`, called with `arguments`. Raises GsiError that names the config key."""
    module, colon, attribute = name.rpartition(":")
    if not colon or not module or not attribute:
        raise GsiError(f"{key}: {name!r} should read module:function or file.py:function")
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module).stem, module)
            assert spec is not None
            assert spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(Path(module).stem, loaded)
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        function = getattr(loaded, attribute)
    except (ImportError, OSError, AttributeError) as e:
        raise GsiError(f"{key}: {name!r} cannot be loaded: {e}") from e
    if not callable(function):
        raise GsiError(f"{key}: {name!r} is a {type(function).__name__}, not a function")
    try:
        inspect.signature(function).bind(*arguments.split())
    except TypeError:
        raise GsiError(f"{key}: {name!r} takes other arguments than it is called with, ({', '.join(arguments.split())})") from None
    except ValueError:  # built in, without a signature
        pass
    return function


def warm_start_queries(config: Config, train: Sequence[Query]) -> list[Query]:
    """The queries whose rationales the warm start trains on."""
    from gsi.seeds import seed_of

    assert config.warm_start is not None
    pool = warm_start_pool(config) or list(train)
    pool = [q for q in pool if q.rationale]
    if not pool:
        raise GsiError("warm_start: none of its rows has a rationale")
    if config.warm_start.limit:
        pool = sorted(pool, key=lambda q: seed_of(config.seed, "warm_start", q.id))[: config.warm_start.limit]
    return sorted(pool, key=lambda q: q.id)


def warm_start_pool(config: Config) -> list[Query]:
    """The queries of `warm_start.tasks`; empty = it uses the training queries."""
    return [q for t in config.warm_start.tasks for q in tasks.load(t).queries] if config.warm_start else []

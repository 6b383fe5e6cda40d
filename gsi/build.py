"""Builds the parts of a run from its config: tokenizer, engine, teacher, guidance, trainer; its data are in `queries.py`."""

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
from pathlib import Path
from typing import Any

from gsi import guidance, mixing
from gsi.asking import SelfTeacher
from gsi.config import Config
from gsi.config.engines import OpenAIEngine, RayEngine, ScriptedEngine, Single, TransformersEngine, VllmEngine
from gsi.engines.pool import Replicas, complain
from gsi.engines.process import in_process, share_of_gpus
from gsi.guidance.steps import split_steps
from gsi.hub import log_in, reachable
from gsi.mirror import Mirror
from gsi.prompts import Renderer
from gsi.types import Engine, GsiError, Guidance, Past, Query, Rollout, Sampling, Teacher, Trainer
from gsi.verify import STEPS
from gsi.verify.steps import check_steps


def resolve_model(config: Config, progress: Callable[[int, int], None] | None = None) -> str:
    """The base model as a directory or hub id; `lab:NAME` is built on first use."""
    if config.model.startswith("lab:"):
        from gsi.lab.base import resolve

        return str(resolve(config.model, progress))
    return config.model


def is_path(model: str) -> bool:
    """Whether a model's name can only be a folder: no hub id begins so."""
    return "/" in model and model.startswith((".", "/", "~"))


def load_tokenizer(config: Config, model: str) -> Any:
    """The tokenizer of the base model. Raises GsiError when there is none."""
    if isinstance(config.drawing, ScriptedEngine):
        from gsi.engines.scripted import ByteTokenizer

        return ByteTokenizer()
    from transformers import AutoTokenizer

    if is_path(model) and not Path(model).exists():
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
        gpus = settings.device != "cpu" and _sees_gpus()
        # with `auto` a copy that finds no GPU left for it would draw on the CPU without a word
        one = settings.model_copy(update={"replicas": 1, "device": "cuda" if gpus else settings.device})
        alone = functools.partial(open_engine, one, model, tokenizer)
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
    return _first_wrong_step(text, STEPS[query.task]) if query.task in STEPS else None


@functools.lru_cache(4096)  # a query's failed attempts are looked at again for each of its next ones
def _first_wrong_step(text: str, words: bool) -> int | None:
    begun = itertools.accumulate(split_steps(text))
    return next((i for i, part in enumerate(begun) if check_steps(part, words) is False), None)


def check_trainable(config: Config, model: str) -> None:
    """Raises GsiError for an architecture that cannot be trained, or not be mixed: at the start of a run, not after its first sampling."""
    if config.train.kind != "scripted":
        from gsi.train import architecture

        architecture.check(model)
    if config.train.interpolate:
        mixing.check(model, model)


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

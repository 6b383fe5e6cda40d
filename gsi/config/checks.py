"""What does not fit together in a config. Every check raises ValueError that names the key and the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gsi import wording
from gsi.config.engines import OpenAIEngine, ScriptedEngine, TransformersEngine

if TYPE_CHECKING:
    from gsi.config.tree import Config


HELPS = ("quota", "stepwise", "floor", "bayes")  # allocations with guided attempts


def check(c: Config) -> None:
    for part in (_prompt, _guidance, _wording, _curation, _training, _tasks, _drawing, _monitor, _scoring):
        part(c)


def _prompt(c: Config) -> None:
    """What every prompt shows."""
    template = c.prompt.template
    if template not in ("auto", "plain", "chat") and "{question}" not in template:
        raise ValueError(f"prompt.template: {template!r} lacks {{question}}; use auto, plain, chat or a text that contains {{question}}")


def _guidance(c: Config) -> None:
    """What guidance needs of the teacher, the prompt and the references."""
    if c.guidance.asks and c.teacher is None:
        what = "guidance `ladder` with the rung `cue`" if c.guidance.kind == "ladder" else f"guidance `{c.guidance.kind}`"
        raise ValueError(
            f"teacher: {what} needs one; add `teacher: {{url: http://.../v1, model: NAME}}`, or `teacher: {{kind: self}}` for the model itself"
        )
    if c.guidance.kind != "none":
        if c.allocation.kind not in HELPS:
            raise ValueError(
                f"guidance.kind: `{c.guidance.kind}` is never asked under allocation `{c.allocation.kind}`, which draws plain attempts only; "
                "set allocation.kind: quota (or stepwise, floor, bayes), or leave guidance out"
            )
        if c.sample.max_extra == 0:
            raise ValueError(
                f"sample.max_extra: with 0 no attempt is left for guidance `{c.guidance.kind}`; set it (8 in the paper), or leave guidance out"
            )
    if len(set(c.guidance.rungs)) < len(c.guidance.rungs):
        raise ValueError(f"guidance.rungs: {', '.join(c.guidance.rungs)} names a rung twice; each once, in the order they are climbed")
    if c.guidance.continues and c.prompt.thinking and (c.guidance.kind != "state_reset" or c.prompt.thinking == "strip"):
        why = (
            "the opening stands in the thinking section, which `strip` would remove from training; use keep"
            if c.guidance.kind == "state_reset"
            else f"guidance {c.guidance.kind} opens answers, not thinking sections; switch thinking off (prompt.chat_template_kwargs={{enable_thinking: false}})"
        )
        raise ValueError(f"prompt.thinking: {why}, or take a guidance that works by the question (answer_driven, rationale_driven)")
    if c.guidance.sham and c.guidance.kind not in ("answer_driven", "rationale_driven", "state_reset"):
        raise ValueError(
            f"guidance.sham: guidance `{c.guidance.kind}` takes nothing from the references that could be exchanged; leave it out"
        )


def _wording(c: Config) -> None:
    """Hint templates of one's own, of those that the guidance reads."""
    g, kinds = c.guidance, {"cue": "cue", "answer": "answer_driven", "rationale": "rationale_driven"}
    own = {
        f"guidance.templates.{rung}": (kinds[rung], text) for rung, text in g.templates.items() if g.kind == "ladder" and rung in g.rungs
    }
    if g.template and g.kind in wording.USES:
        own["guidance.template"] = (g.kind, g.template)
    for key, (kind, text) in own.items():
        if found := wording.fault(text, kind, key):
            raise ValueError(found)


def _curation(c: Config) -> None:
    """What control arms have to say."""
    if not c.curate.verdicts and not c.control:
        raise ValueError(
            "control: rows are drawn whatever their verdict (strategy random_kept, or curate.verdicts: false); say `control: true` if you mean it"
        )
    if c.curate.match and not c.curate.like:
        raise ValueError(f"curate.like: `match: {c.curate.match}` needs the folder of the run whose rows are matched")


def _training(c: Config) -> None:
    """Training keys that exclude or need one another."""
    if c.train.kind == "scripted" and not c.train.function:
        raise ValueError("train.function: `kind: scripted` needs one, as module:function")
    if c.train.replay and c.train.data == "accumulate":
        raise ValueError("train.replay: with data: accumulate every earlier row is there already; set data: replace, or leave replay out")
    if c.train.processes > 1 and c.train.parallel == "single":
        raise ValueError(f"train.parallel: `single` with {c.train.processes} processes; use ddp, fsdp2, zero2 or zero3, or processes: 1")
    several = c.train.interpolate is not None and isinstance(c.train.interpolate.weight, tuple)
    if several and not c.evaluate.validation:
        raise ValueError(
            "train.interpolate: several weights are chosen from on the validation split; set evaluate.validation, or one weight"
        )


def _tasks(c: Config) -> None:
    """A mixture's weights, and what one task may not have together."""
    weights = [task.weight for task in c.tasks]
    if any(weights) and (None in weights or len({task.name for task in c.tasks}) < len(c.tasks)):
        raise ValueError("tasks: a mixture gives every task a name and a weight of its own; complete them, or leave all weights out")
    for i, task in enumerate((*c.tasks, *c.evaluate.tasks)):
        where = f"tasks[{i}]" if i < len(c.tasks) else f"evaluate.tasks[{i - len(c.tasks)}]"
        if task.shuffle_options and i >= len(c.tasks):
            raise ValueError(f"{where}.shuffle_options: evaluation shows every question as it is; leave it out")
        if task.weight and i >= len(c.tasks):
            raise ValueError(f"{where}.weight: test sets are not mixed; leave it out")
        if task.shuffle_options and task.programs:
            raise ValueError(
                f"{where}.shuffle_options: not with programs: code written for another order of the options would be trained with the plain "
                "question, and cannot be mapped back; leave one of the two out"
            )
        if task.marked and (task.check or task.programs):
            raise ValueError(f"{where}.marked: answers are read by {'your own check' if task.check else 'running programs'}; leave it out")
        if task.path and task.hub:
            raise ValueError(f"{where}: has both path and hub; keep one")


def _drawing(c: Config) -> None:
    """What the engine that draws cannot do."""
    if c.sample.repetition_stop and not isinstance(c.drawing, TransformersEngine):
        raise ValueError(f"sample.repetition_stop: engine {c.drawing.kind} cannot do this; engine transformers can")
    if isinstance(c.drawing, OpenAIEngine):
        _server(c, c.drawing)


def _monitor(c: Config) -> None:
    """What going back to an earlier model needs."""
    if c.monitor.on_alarm == "rollback" and (c.keep_models != "all" or not c.evaluate.validation):
        raise ValueError(
            "monitor.on_alarm: rollback goes back to the best earlier model, which needs keep_models: all and evaluate.validation above 0"
        )


def _scoring(c: Config) -> None:
    """What needs log-probabilities of given completions."""
    scores = isinstance(c.drawing, TransformersEngine) or (isinstance(c.drawing, ScriptedEngine) and c.drawing.score)
    by_likelihood = c.curate.upweight is not None and c.curate.upweight.by == "likelihood"
    if not scores and (by_likelihood or c.curate.gate.reliance != "none"):
        key = "curate.upweight.by: likelihood" if by_likelihood else f"curate.gate.reliance: {c.curate.gate.reliance}"
        raise ValueError(
            f"{key} needs an engine that scores, and {c.drawing.kind} does not; transformers does, and scripted with engine.score"
        )


def _server(c: Config, engine: OpenAIEngine) -> None:
    """What a server could not do, or would do with the wrong model."""
    if engine.api == "chat" and c.guidance.continues:
        raise ValueError(
            f"engine.api: guidance {c.guidance.kind} continues a given prefix, which `chat` cannot; use api: completions, or engine kind transformers or vllm"
        )
    if engine.api == "chat" and c.prompt.template in ("auto", "chat"):
        raise ValueError(
            "prompt.template: with engine.api `chat` the server applies the chat template; set prompt.template: '{question}', or use api: completions"
        )
    if len(c.sample.stop) > 4:
        raise ValueError(
            f"sample.stop: OpenAI-compatible servers take at most 4, found {len(c.sample.stop)}; use fewer, or another engine kind"
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
    others = c.iterations > 1 or c.warm_start is not None or c.evaluate.validation > 0 or bool(c.evaluate.tasks)
    if engine.served_model is not None and engine.launch is None and others:
        raise ValueError(
            f"engine.served_model: a server that always serves {engine.served_model!r} would answer for the trained models too; "
            "set engine.launch: a command with {model} that starts one for every model, or leave served_model out and restart the server for every "
            "model (only `iterations: 1` with `evaluate: {validation: 0}` and no warm start draws from the base model alone)"
        )

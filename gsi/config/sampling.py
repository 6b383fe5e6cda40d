"""Config of sampling: the prompt, the attempts of a query, who gets more of them, and guidance with its teacher."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gsi.config.section import Section, no_login


class Prompt(Section):
    template: str = "auto"  # auto = chat where the tokenizer has a template, else plain; or text with {question}
    instruction: str = ""  # appended to every question, plain and hinted alike
    chat_template_kwargs: dict[str, Any] = Field({})
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
    hopeless: Annotated[float, Field(ge=0, lt=1)] = 0.03
    saturated: Annotated[float, Field(gt=0, le=1)] = (
        0.95  # bayes: believed pass rate at an iteration's start from which a query may be skipped
    )
    skip: Annotated[float, Field(ge=0, le=0.9)] = 0.0  # bayes: probability of that; the rest is sampled, so nothing is forgotten unseen
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
    # own_prefix: added to the temperature for each attempt of this iteration that went on from the same point and failed, up to three times
    warmer: Annotated[float, Field(ge=0, le=1)] = 0.3
    beginnings: bool = True  # own_prefix: goes on from the right beginning of failed attempts too; false = openings of own solutions alone
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)] = ("cue", "short", "long", "answer", "rationale")  # ladder: any may be left out
    templates: dict[Literal["cue", "answer", "rationale"], str] = Field({})  # ladder: own wording of these rungs
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
    parameters: Annotated[int, Field(ge=1)] | None = None  # of the served model, so that its tokens count in cost/flops
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 512

    @model_validator(mode="after")
    def _check(self) -> Teacher:
        for key in ("url", "model"):
            if self.kind == "server" and not getattr(self, key):
                raise ValueError(
                    f"missing key {key!r}; a teacher is {{url: http://.../v1, model: NAME}}, or {{kind: self}} for the model itself"
                )
        no_login(self.url)
        return self

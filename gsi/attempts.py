"""One attempt, written down: what an engine is asked, and what the ledger keeps of the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gsi.prompts import Renderer
from gsi.seeds import seed_of
from gsi.shuffle import restored, shuffled
from gsi.types import SHUFFLE, Completion, Hint, Query, Request, Rollout, Sampling, Text, Verdict

UNGRADED = {"length": "truncated", "repetition": "truncated", "too_long": "too_long", "error": "error"}  # status by finish reason


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Attempts:
    """What all attempts of one sampling pass have in common.

    Args:
        iteration: the ledger's iteration, the index of the model that draws.
        sampling: settings of attempt number n.
        seed: the run's; with split, iteration, query and attempt it gives the request's.
        shuffle: tasks whose attempts without a hint show the options of a choice query in an order of their own.
        split: None = rollouts, else the split of the table `evaluations`.
    """

    renderer: Renderer
    iteration: int
    sampling: Callable[[int], Sampling]
    seed: int
    strategy: str
    model: str
    shuffle: Collection[str] = ()
    split: str | None = None

    def prompt(self, query: Query) -> Text:
        return self.renderer.prompt(query)

    def request(self, query: Query, prompt: Text, attempt: int, hint: Hint | None) -> Request:
        """Attempt number `attempt` at a query; `prompt` is its plain one, rendered once for all attempts."""
        shown, label = query, hint.label if hint else None
        if hint is None and query.task in self.shuffle and (other := shuffled(query, self.seed, self.iteration, attempt)):
            shown, label = other
            prompt = self.renderer.prompt(shown)
        elif hint is not None and hint.question is not None:
            prompt = self.renderer.prompt(query, hint.question)
        given = hint.given if hint else Text("")
        if given.ids is None:
            given = self.renderer.continuation(prompt, given.text)
        sampling = self.sampling(attempt)
        if hint is not None and hint.warmer:
            sampling = replace(sampling, temperature=sampling.temperature + hint.warmer)
        return Request(
            query=shown,
            iteration=self.iteration,
            attempt=attempt,
            prompt=prompt,
            given=given,
            sampling=sampling,
            seed=seed_of(self.seed, self.split or "sample", self.iteration, query.id, attempt),
            guidance=label,
        )

    def rollout(self, query: Query, request: Request, completion: Completion, verdict: Verdict) -> Rollout:
        """The row of an attempt at `query`, which the request may show with its options in another order."""
        response = request.given.text + completion.text
        ids = None if completion.ids is None or request.given.ids is None else request.given.ids + completion.ids
        trained = self.renderer.trained(response)
        if request.guidance and request.guidance.startswith(SHUFFLE):
            # only what is trained on: a thinking section that is cut off may name any option
            trained = restored(trained, request.guidance, query.question, verdict.extracted) or ""
        status = UNGRADED.get(completion.finish_reason, verdict.status)
        return Rollout(
            query_id=request.query.id,
            task=request.query.task,
            level=request.query.level,
            iteration=request.iteration,
            attempt=request.attempt,
            strategy=self.strategy,
            guidance=request.guidance,
            prompt=request.prompt.text,
            given=request.given.text,
            response=response,
            completion=trained,
            prompt_ids=request.prompt.ids,
            response_ids=ids,
            prompt_tokens=request.prompt.n_tokens if completion.prompt_tokens is None else completion.prompt_tokens,
            given_tokens=request.given.n_tokens,
            generated_tokens=completion.generated_tokens,
            finish_reason=completion.finish_reason,
            seed=request.seed,
            model=self.model,
            status=status,
            correct=status == "correct",
            steps_ok=verdict.steps_ok,
            extracted=verdict.extracted,
            detail=verdict.detail,
            created_at=now(),
        )

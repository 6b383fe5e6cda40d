"""From accepted rollouts to training rows: filters that say why, cap, floor, distinct. Pure and seeded.

A training row pairs the plain question with the completion, whatever hint its attempt had: hints never train.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gsi.prompts import Renderer
from gsi.seeds import seed_of
from gsi.types import SHUFFLE, Example, GsiError, Query, Rollout, Text


@dataclass(frozen=True)
class Dropped:
    """A correct response that is not trained on, and why."""

    example: Example
    # steps_wrong | empty | option_letters (it names options of another order) | only_thinking | too_long | the gate's | duplicate | over_cap
    reason: str


class Judged(Protocol):
    """What is said of the attempts at one query (`gsi.gate.Judgement`)."""

    def reject(self, r: Rollout) -> str | None:
        """Why it is not trained on; None = it is."""

    def weigh(self, r: Rollout) -> float: ...


@dataclass(frozen=True)
class Curated:
    examples: list[Example]
    dropped: list[Dropped]


def curate(rollouts: Iterable[Rollout], queries: Mapping[str, Query], renderer: Renderer, **rules: Any) -> Curated:
    """What `curate_each` chooses of all queries together. Rollouts may come in any order."""
    ordered = sorted(rollouts, key=lambda r: (r.query_id, r.iteration, r.attempt))
    return together(curate_each(ordered, queries, renderer, **rules))


def together(parts: Iterable[Curated]) -> Curated:
    examples: list[Example] = []
    dropped: list[Dropped] = []
    for part in parts:
        examples += part.examples
        dropped += part.dropped
    return Curated(examples, dropped)


def curate_each(
    rollouts: Iterable[Rollout],
    queries: Mapping[str, Query],
    renderer: Renderer,
    *,
    accept: str = "answer",
    control: bool = False,
    cap: int = 0,
    floor: int = 0,
    distinct: Callable[[str], Hashable] | None = None,
    judge: Callable[[list[Rollout], list[Rollout]], Judged] | None = None,
    among: Callable[[list[Rollout]], list[Rollout]] | None = None,
    max_length: int = 2048,
    on_given: bool = True,
    stop_ids: frozenset[int] = frozenset(),
    seed: int = 0,
) -> Iterator[Curated]:
    """Chooses what is trained on, one query after the other, so that no more than one query's rows are in memory.

    Args:
        rollouts: attempts in (query, iteration, attempt) order; only correct ones are considered (with `control`, every one that ended).
        accept: `steps` drops right answers with a wrong or unchecked step.
        cap: rows per query at most, 0 = all; which ones is drawn from the seed and the rows' identity.
        floor: a query with fewer rows, but at least one, has them repeated up to this number.
        distinct: keep one of a query's completions that this says are the same (`gsi.distinct`), the earliest.
        judge: what the gate (`gsi.gate`) says of a query's attempts, given all of them and those that pass the filters before it: which of
            these are not trained on, and the weights of the others.
        among: of a query's attempts, those that are chosen from (a control arm); None = all.
        max_length: tokens; longer rows are dropped, never cut.
        on_given: whether the given part of a response is trained on or context.

    Rows are in the order of `rollouts`.
    """
    for query_id, group in itertools.groupby(rollouts, key=lambda r: r.query_id):
        if query_id not in queries:
            continue
        every = list(group)
        own = [r for r in (among(every) if among else every) if r.correct or (control and r.finish_reason == "stop")]
        if not own:
            continue
        prompt = renderer.prompt(queries[query_id])
        made: list[tuple[Rollout, Example, str | None]] = []  # with what the filters before the gate say
        for r in own:
            if r.guidance is None and r.prompt_ids is not None and r.prompt_ids != prompt.ids:
                raise GsiError(
                    f"query {query_id}: the prompt is rendered differently now than when attempt {r.attempt} was drawn ({prompt.text[:200]!r}, before "
                    f"{r.prompt[:200]!r}); a template that changes by itself (a date, an edited tokenizer) cannot be trained on: restore the old one"
                )
            example = example_of(r, prompt, renderer, on_given, stop_ids)
            reason = None
            if not control and not r.accepted(accept):
                reason = "steps_wrong"
            elif not r.completion.strip():
                letters = r.guidance and r.guidance.startswith(SHUFFLE) and renderer.trained(r.response).strip()
                reason = "empty" if not r.response.strip() else "option_letters" if letters else "only_thinking"
            elif len(example.input_ids) > max_length:
                reason = "too_long"
            made.append((r, example, reason))
        judged = judge(every, [r for r, _, reason in made if not reason]) if judge else None
        kept: list[Example] = []
        dropped: list[Dropped] = []
        seen: set[Hashable] = set()
        for r, example, reason in made:
            if judged:
                example, reason = replace(example, weight=judged.weigh(r)), reason or judged.reject(r)
            same = distinct(r.completion) if distinct and not reason else None
            if reason or (distinct and same in seen):
                dropped.append(Dropped(example, reason or "duplicate"))
            else:
                seen.add(same)
                kept.append(example)
        if cap and len(kept) > cap:
            chosen = sorted(kept, key=lambda e: seed_of(seed, "cap", e.query_id, e.iteration, e.attempt))[:cap]
            dropped += [Dropped(e, "over_cap") for e in kept if e not in chosen]
            kept = [e for e in kept if e in chosen]
        yield Curated(kept + [kept[i % len(kept)] for i in range(floor - len(kept)) if kept], dropped)


def select(
    rollouts: Iterable[Rollout],
    *,
    accept: str = "answer",
    cap: int = 0,
    distinct: Callable[[str], Hashable] | None = None,
    seed: int = 0,
) -> list[Rollout]:
    """The accepted rollouts that `curate` keeps with the same settings, in its order, without a tokenizer (and so without `max_length`)."""
    by_query: dict[str, list[Rollout]] = defaultdict(list)
    for r in rollouts:
        if r.accepted(accept) and r.completion.split():
            by_query[r.query_id].append(r)
    chosen = []
    for query_id in sorted(by_query):
        kept = sorted(by_query[query_id], key=lambda r: (r.iteration, r.attempt))
        chosen += thin(kept, cap, distinct, seed)
    return chosen


def thin(rows: Sequence[Rollout], cap: int, distinct: Callable[[str], Hashable] | None, seed: int) -> list[Rollout]:
    """Rows of one query with `cap` and `distinct`, in the order given; of completions that are the same the first stays."""
    kept = list(rows)
    if distinct:
        first: dict[Hashable, Rollout] = {}
        for r in rows:
            first.setdefault(distinct(r.completion), r)
        kept = list(first.values())
    if cap and len(kept) > cap:
        ranked = sorted(kept, key=lambda r: seed_of(seed, "cap", r.query_id, r.iteration, r.attempt))[:cap]
        kept = [r for r in kept if r in ranked]
    return kept


def reference_examples(queries: Iterable[Query], renderer: Renderer, source: str, max_length: int) -> Curated:
    """Training rows from the references themselves (warm start, control arms)."""
    rows = []
    for query in queries:
        if query.rationale:
            prompt = renderer.prompt(query)
            assert prompt.ids is not None
            ids = renderer.ending(renderer.continuation(prompt, query.rationale).ids or ())
            mask = (0,) * len(prompt.ids) + (1,) * len(ids)
            rows.append(Example(prompt.text, query.rationale, prompt.ids + ids, mask, query.id, 0, -1, source=source))
    return short_enough(rows, max_length)


def short_enough(rows: Iterable[Example], max_length: int) -> Curated:
    """Rows that are no rollouts of this run, those longer than training takes dropped."""
    examples, dropped = [], []
    for row in rows:
        if len(row.input_ids) > max_length:
            dropped.append(Dropped(row, "too_long"))
        else:
            examples.append(row)
    return Curated(examples, dropped)


def example_of(r: Rollout, prompt: Text, renderer: Renderer, on_given: bool, stop_ids: frozenset[int]) -> Example:
    """The stored ids behind the ids of the plain prompt; text is tokenized only where the engine gave no ids."""
    assert prompt.ids is not None
    given = r.given_tokens
    if r.response_ids is not None and r.completion == r.response:
        ids = r.response_ids
    else:
        ids = renderer.continuation(prompt, r.completion).ids or ()
        given = len(renderer.continuation(prompt, r.given).ids or ()) if r.given else 0
    ids = renderer.ending(ids, stop_ids)
    mask = (1,) * len(ids) if on_given else (0,) * given + (1,) * (len(ids) - given)
    return Example(
        prompt=prompt.text,
        completion=r.completion,
        input_ids=prompt.ids + ids,
        loss_mask=(0,) * len(prompt.ids) + mask,
        query_id=r.query_id,
        iteration=r.iteration,
        attempt=r.attempt,
        guidance=r.guidance,
    )

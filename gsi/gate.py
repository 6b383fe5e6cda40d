"""The gate: which guided samples are worth training on, and how much an accepted sample counts. Pure.

Leaks first (`gsi.leaks`), then hint reliance (`gsi.reliance`): as a filter, as a choice among the guided samples of a query, or as
weight. Plain samples pass as they are. Up-weighting what is unlikely but correct is for all rows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gsi import leaks
from gsi.config.training import Gate, Upweight
from gsi.types import Query, Rollout

Key = tuple[str, int, int]  # query, iteration, attempt
Scores = Mapping[Key, tuple[float | None, float | None]]  # reliance, mean log-probability given the plain question
LEAST_WEIGHT = 1e-3


@dataclass
class Judgement:
    """Reasons for what is not trained on, and weights other than 1."""

    reasons: dict[Key, str] = field(default_factory=dict)
    weights: dict[Key, float] = field(default_factory=dict)

    def reject(self, r: Rollout) -> str | None:
        return self.reasons.get(_key(r))

    def weigh(self, r: Rollout) -> float:
        return self.weights.get(_key(r), 1.0)


def judge(rows: Iterable[Rollout], queries: Mapping[str, Query], scores: Scores, gate: Gate) -> Judgement:
    """Judges the accepted guided attempts among `rows`; the result does not depend on their order.

    Reasons: leak_mention, leak_early_answer, leak_copy, steps_wrong; then unscored, reliance (below the threshold) or not_best.
    """
    found = Judgement()
    groups: dict[tuple[str, int], list[tuple[float, Key]]] = defaultdict(list)
    for r in rows:
        if not r.guided or r.query_id not in queries:
            continue
        key, (reliance, _) = _key(r), scores.get(_key(r), (None, None))
        if reason := leak(r, queries[r.query_id], gate):
            found.reasons[key] = reason
        elif gate.reliance != "none" and reliance is None:
            found.reasons[key] = "unscored"
        elif gate.reliance == "filter" and reliance is not None and reliance < gate.threshold:
            found.reasons[key] = "reliance"
        elif gate.reliance == "weight" and reliance is not None:
            found.weights[key] = max(LEAST_WEIGHT, math.exp(min(reliance, 0.0) / gate.temperature))
        elif gate.reliance == "choose" and reliance is not None:
            groups[r.query_id, r.iteration].append((reliance, key))
    for group in groups.values():  # those of one query and iteration; of equals the earliest
        for _, key in sorted(group, key=lambda g: (-g[0], g[1]))[gate.best :]:
            found.reasons[key] = "not_best"
    return found


def leak(r: Rollout, query: Query, gate: Gate) -> str | None:
    """The reason of the first of `gate.leaks` that an attempt shows, of the part that the model generated; else None."""
    text = r.completion[len(r.given) :] if r.completion.startswith(r.given) else r.completion
    # by the task's own step check, made when the response was graded
    if "steps" in gate.leaks and r.steps_ok is False:
        return "steps_wrong"
    if "mention" in gate.leaks and leaks.mention(text, query.question):
        return "leak_mention"
    # what an opening has derived already may well be stated first thing
    if "early_answer" in gate.leaks and not r.given and leaks.early_answer(text, query.answer, query.options, query.question):
        return "leak_early_answer"
    if "copy" in gate.leaks and query.rationale and leaks.copy(text, query.rationale, gate.overlap):
        return "leak_copy"
    return None


def upweight(drawn: Iterable[Rollout], scores: Scores, settings: Upweight, accept: str) -> dict[Key, float]:
    """Weights of accepted attempts that grow with how unlikely they were (after "Rewarding the Unlikely", arXiv 2506.02355).

    `pass_rate`: (the query's rate among the iteration's plain attempts, with half a success and half a failure added) ** -power.
    `likelihood`: exp(-power x (mean log-probability - its mean over the query's accepted attempts of the iteration)), so a query's
    own rare solutions count more than its usual one; an attempt without a score has weight 1. Both between 1 / most and most.

    Args:
        drawn: all attempts, not only accepted ones.
    """
    tries: dict[tuple[str, int], list[bool]] = defaultdict(list)
    accepted: list[Key] = []
    for r in drawn:
        if r.accepted(accept):
            accepted.append(_key(r))
        if not r.guided:
            tries[r.query_id, r.iteration].append(r.accepted(accept))
    if settings.by == "pass_rate":
        raw = {key: ((sum(t := tries[key[:2]]) + 0.5) / (len(t) + 1)) ** -settings.power for key in accepted}
    else:
        groups: dict[tuple[str, int], list[float]] = defaultdict(list)
        known = {key: logp for key in accepted if (logp := scores.get(key, (None, None))[1]) is not None}
        for key, logp in sorted(known.items()):
            groups[key[:2]].append(logp)
        means = {group: _mean(values) for group, values in groups.items()}
        raw = {key: math.exp(min(700.0, -settings.power * (logp - means[key[:2]]))) for key, logp in known.items()}
    return {key: min(max(weight, 1 / settings.most), settings.most) for key, weight in raw.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _key(r: Rollout) -> Key:
    return r.query_id, r.iteration, r.attempt

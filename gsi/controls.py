"""Rows of the control arms: what sampling, verdicts and guidance are worth is only seen beside training sets that lack one of them.

Pure and seeded, like `curate.py`, whose rows they change or add to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from gsi.prompts import Renderer
from gsi.seeds import seed_of
from gsi.types import Example, Guidance, Query, Rollout


def under_quota(rollouts: Iterable[Rollout], queries: Iterable[Query], wanted: int, accept: str) -> list[Query]:
    """The queries with fewer than `wanted` accepted plain attempts: those that a guided arm would help."""
    accepted = Counter(r.query_id for r in rollouts if not r.guided and r.accepted(accept))
    return [q for q in queries if accepted[q.id] < wanted]


def openings(queries: Iterable[Query], guidance: Guidance, renderer: Renderer, hints: int) -> list[Example]:
    """One row for every different opening of a reference that `guidance` hands over in `hints` attempts: all of it trained, no end token."""
    rows: list[Example] = []
    for query in queries:
        prompt = renderer.prompt(query)
        assert prompt.ids is not None
        seen: set[str] = set()
        for i in range(hints):
            hint = guidance.hint(query, (), i)
            if hint is None or not hint.given.text or hint.given.text in seen:
                continue
            seen.add(hint.given.text)
            ids = hint.given.ids if hint.given.ids is not None else renderer.continuation(prompt, hint.given.text).ids
            assert ids is not None
            mask = (0,) * len(prompt.ids) + (1,) * len(ids)
            rows.append(Example(prompt.text, hint.given.text, prompt.ids + ids, mask, query.id, 0, -1, hint.label, source="reference"))
    return rows


def whatever_verdict(rollouts: Iterable[Rollout], accept: str, seed: int) -> list[Rollout]:
    """Of one query's attempts as many as were accepted, drawn from all that ended, right or wrong, in (iteration, attempt) order."""
    ended = [r for r in rollouts if r.finish_reason == "stop"]
    count = sum(r.accepted(accept) for r in ended)
    chosen = sorted(ended, key=lambda r: seed_of(seed, "verdicts", r.query_id, r.iteration, r.attempt))[:count]
    return sorted(chosen, key=lambda r: (r.iteration, r.attempt))


def match_levels(rows: Sequence[Example], target: Mapping[int | None, int], level: Callable[[str], int | None], seed: int) -> list[Example]:
    """The rows, those of a level with fewer rows than `target` repeated up to it; a level without any stays without.

    Args:
        target: rows wanted by level.
        level: level of a query id.
    """
    by_level: dict[int | None, list[Example]] = defaultdict(list)
    for row in sorted(rows, key=lambda e: seed_of(seed, "match", e.query_id, e.iteration, e.attempt)):
        by_level[level(row.query_id)].append(row)
    more = [
        own[i % len(own)] for key, wanted in sorted(target.items(), key=str) if (own := by_level[key]) for i in range(wanted - len(own))
    ]
    return [*rows, *more]


def match_rows(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` of the rows, drawn by the seed (all of them where there are fewer), in their order."""
    return [rows[i] for i in sorted(_shuffled(rows, seed, "match")[:count])]


def up_to_tokens(rows: Sequence[Example], tokens: int, seed: int) -> list[Example]:
    """Rows drawn by the seed, one after the other as long as their trained tokens fit into `tokens`, in their order."""
    kept: list[int] = []
    for i in _shuffled(rows, seed, "tokens"):
        size = sum(rows[i].loss_mask)
        if size <= tokens:
            kept.append(i)
            tokens -= size
    return [rows[i] for i in sorted(kept)]


def _shuffled(rows: Sequence[Example], seed: int, purpose: str) -> list[int]:
    """Row numbers in an order drawn by the seed; it depends on the rows' identities."""
    return sorted(range(len(rows)), key=lambda i: seed_of(seed, purpose, rows[i].query_id, rows[i].iteration, rows[i].attempt, i))

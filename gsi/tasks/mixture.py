"""Which of the queries are used for what: mixtures by weight, and the validation split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from gsi.types import Query


def mix(queries: Sequence[Query], weights: Mapping[str, float], seed: int) -> list[Query]:
    """The largest mixture in which tasks have the proportions of `weights` and no query occurs twice, in the order given.

    `weights` names every task of the queries; empty = all of them. Which queries of a task are in it is chosen by a hash of
    seed and query id, so a smaller mixture of a seed is part of a larger one.
    """
    if not weights:
        return list(queries)
    by_task: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        by_task[query.task].append(query)
    chosen: set[str] = set()
    for task, count in mixed_sizes({task: len(by_task[task]) for task in weights}, weights).items():
        ranked = sorted(by_task[task], key=lambda query: _rank(seed, f"mix/{query.id}"))
        chosen |= {query.id for query in ranked[:count]}
    return [query for query in queries if query.id in chosen]


def mixed_sizes(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Queries of each task in the largest mixture in the proportions of `weights`."""
    unit = min(sizes[task] / weight for task, weight in weights.items())  # queries per unit of weight
    return {task: round(unit * weight) for task, weight in weights.items()}


def validation_size(n: int, validation: float) -> int:
    """Of n queries, how many are asked for: a share (at least one query) below 1, else a number; at least one stays in training."""
    if not n or validation <= 0:
        return 0
    return min(n - 1, max(1, round(validation * n)) if validation < 1 else int(validation))


def split_validation(queries: Sequence[Query], validation: float, seed: int) -> tuple[list[Query], list[Query]]:
    """(train, validation), both in the order given. `validation` below 1 is a share (at least one query), else a number; 0 = none.

    Stratified by task and level, and chosen by a hash of seed and query id, so it does not depend on the order of the
    queries. Queries with the same question text stay on one side, and at least one query stays in training; for both
    reasons validation may come out smaller than asked for.
    """
    if not queries or validation <= 0:
        return list(queries), []
    groups: dict[str, list[Query]] = defaultdict(list)  # text -> its queries
    for query in queries:
        groups[_same(query)].append(query)
    strata: dict[tuple[str, int | None], list[tuple[bytes, str]]] = defaultdict(list)  # (rank, text) of every group
    size: dict[tuple[str, int | None], int] = defaultdict(int)  # queries
    for text, group in groups.items():
        rank, first = min(((_rank(seed, query.id), query) for query in group), key=lambda pair: pair[0])
        strata[first.task, first.level].append((rank, text))
        size[first.task, first.level] += len(group)

    total = validation_size(len(queries), validation)
    quota = {key: total * n // len(queries) for key, n in size.items()}
    by_remainder = sorted(size, key=lambda key: (-(total * size[key] % len(queries)), _rank(seed, repr(key))))
    for key in by_remainder[: total - sum(quota.values())]:
        quota[key] += 1

    chosen: set[str] = set()  # texts
    for key, members in strata.items():
        left = quota[key]
        for _, text in sorted(members):
            if len(groups[text]) <= left:
                left -= len(groups[text])
                chosen.add(text)
    return [q for q in queries if _same(q) not in chosen], [q for q in queries if _same(q) in chosen]


def _same(query: Query) -> str:
    return " ".join(query.question.split())


def _rank(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}/{text}".encode()).digest()

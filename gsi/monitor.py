"""The tail monitor: figures of a narrowing tail, each with how surprising its change is if nothing changed. Pure.

An iteration is compared with the first one and with the one before, on the queries that were asked in both. Every figure's change
is a sum of contributions of single queries, u_q; if a query's attempts are equally good in both iterations, u_q is as likely
positive as negative, so z = sum(u) / sqrt(sum(u ** 2)) is about standard normal, whatever the rates, the levels or the policy. A query is
one unit however many rows it has. "Solved, then lost" is compared with what chance takes (beta-binomial, `gsi.lab.chance`).

An alarm is a z above `THRESHOLD` and a change above the least size. `python -m gsi.lab.monitor_check` measures how often it is wrong.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gsi.allocation.belief import prior
from gsi.lab.chance import never_again

THRESHOLD = 3.0  # tuned on simulated runs of other seeds than the reported ones: docs/curation.md

# figure -> (what it is, what to change)
FIGURES = {
    "hard_coverage": ("hard questions with an accepted attempt", "help hard questions more (a guided strategy, sample.max_extra), or mix the weights with the base (train.interpolate)"),
    "hard_share": ("share of hard questions among the training rows", "limit the easy ones (curate.cap), lift the hard ones (curate.floor, curate.upweight), or keep earlier rows (train.data: accumulate, train.replay)"),
    "effective_queries": ("effective number of questions in the training rows", "limit rows per question (curate.cap) or keep earlier rows (train.data: accumulate, train.replay)"),
    "distinct": ("how often two accepted rationales of a question differ", "train on distinct ones (curate.distinct: steps) or sample more widely (sample.temperature)"),
    "length": ("tokens per training row of the same questions", "see whether responses are cut off (sample.max_new_tokens) or skip steps (accept: steps)"),
    "perplexity": ("perplexity of the training rows under the base model", "weigh unlikely rows more (curate.upweight), mix the weights with the base (train.interpolate)"),
    "lost": ("questions solved before and lost now, beyond chance", "keep earlier rows (train.data: accumulate, train.replay) or mix the weights with the base (train.interpolate)"),
    "gap": ("how much better guided attempts are than plain ones at the same questions", "gate what leans on its hints (curate.gate), or train the generated part only (train.on_given: false)"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What one iteration saw of one query."""

    level: str  # task and level: queries that resemble each other
    plain: int = 0  # attempts without help
    plain_right: int = 0  # of those, accepted
    guided: int = 0
    guided_right: int = 0
    differ: float | None = None  # probability that two of its accepted rationales have different steps; None = fewer than two
    rows: int = 0  # training rows
    tokens: int = 0  # trained tokens in them


Iteration = Mapping[str, Seen]  # query id -> what was seen of those that were asked


@dataclass(frozen=True)
class Change:
    """One figure, before and now. `size` is the change for the worse: relative, but for `gap` and `lost` (share of the solved) absolute."""

    figure: str
    was: float
    now: float
    size: float
    z: float  # above 0 = for the worse

    def alarm(self, threshold: float, least: float) -> bool:
        return self.z > threshold and self.size > least


def changes(
    was: Iteration, now: Iteration, hard: Collection[str], perplexity: tuple[Sequence[float], Sequence[float]] | None = None
) -> list[Change]:
    """The figures that both iterations have.

    Args:
        hard: ids of hard queries.
        perplexity: of both iterations (mean negative log-probability per token, its standard deviation over rows, rows).
    """
    both = sorted(was.keys() & now.keys())
    pairs = [(was[q], now[q]) for q in both]
    tail = [q in hard for q in both]
    found = [
        _coverage([p for p, is_hard in zip(pairs, tail, strict=True) if is_hard]),
        *_shares(pairs, tail),
        _distinct(pairs),
        _length(pairs),
    ]
    found += [_lost(pairs), _gap(pairs)]
    if perplexity:
        (a, sd_a, n_a), (b, sd_b, n_b) = perplexity
        se = math.sqrt(sd_a**2 / max(n_a, 1) + sd_b**2 / max(n_b, 1))
        found.append(Change("perplexity", math.exp(a), math.exp(b), 1 - math.exp(b - a), (a - b) / se if se else 0.0))
    return [c for c in found if c is not None]


def differ(counts: Collection[int]) -> float | None:
    """Probability that two accepted rationales of a query differ, from how often each was accepted; unlike their number, it does not
    change with the number of attempts or with the pass rate. None for fewer than two."""
    n = sum(counts)
    return 1 - sum(c * (c - 1) for c in counts) / (n * (n - 1)) if n > 1 else None


def worst(history: Sequence[Sequence[Change]]) -> dict[str, Change]:
    """Of several comparisons the one with the largest z, by figure."""
    found: dict[str, Change] = {}
    for c in (c for each in history for c in each):
        if c.figure not in found or c.z > found[c.figure].z:
            found[c.figure] = c
    return found


def _z(contributions: Iterable[float]) -> float:
    u = list(contributions)
    square = sum(x * x for x in u)
    return sum(u) / math.sqrt(square) if square else 0.0


def _coverage(pairs: Sequence[tuple[Seen, Seen]]) -> Change | None:
    if not pairs:
        return None
    covered = [(a.plain_right + a.guided_right > 0, b.plain_right + b.guided_right > 0) for a, b in pairs]
    was, now = (sum(c[i] for c in covered) / len(covered) for i in (0, 1))
    return Change("hard_coverage", was, now, _fall(was, now), _z(a - b for a, b in covered))


def _shares(pairs: Sequence[tuple[Seen, Seen]], tail: Sequence[bool]) -> list[Change]:
    """hard_share and effective_queries, both functions of each query's share of the rows."""
    total_a, total_b = (sum(p[i].rows for p in pairs) for i in (0, 1))
    if not total_a or not total_b:
        return []
    shares = [(a.rows / total_a, b.rows / total_b) for a, b in pairs]
    found = []
    if any(tail):
        was, now = (sum(s[i] for s, is_hard in zip(shares, tail, strict=True) if is_hard) for i in (0, 1))
        middle = (was + now) / 2
        found.append(
            Change(
                "hard_share",
                was,
                now,
                _fall(was, now),
                _z((a - b) * (is_hard - middle) for (a, b), is_hard in zip(shares, tail, strict=True)),
            )
        )
    entropy = [-sum(s[i] * math.log(s[i]) for s in shares if s[i]) for i in (0, 1)]
    mean = sum(entropy) / 2
    was, now = math.exp(entropy[0]), math.exp(entropy[1])
    found.append(
        Change("effective_queries", was, now, _fall(was, now), _z((a - b) * (-math.log((a + b) / 2) - mean) for a, b in shares if a + b))
    )
    return found


def _distinct(pairs: Sequence[tuple[Seen, Seen]]) -> Change | None:
    known = [(a.differ, b.differ) for a, b in pairs if a.differ is not None and b.differ is not None]
    if not known:
        return None
    was, now = (sum(k[i] for k in known) / len(known) for i in (0, 1))
    return Change("distinct", was, now, _fall(was, now), _z(a - b for a, b in known))


def _length(pairs: Sequence[tuple[Seen, Seen]]) -> Change | None:
    """Both directions are for the worse: shorter skips steps, longer rambles."""
    means = [(a.tokens / a.rows, b.tokens / b.rows) for a, b in pairs if a.rows and b.rows]
    if not means:
        return None
    was, now = (sum(m[i] for m in means) / len(means) for i in (0, 1))
    return Change("length", was, now, abs(now / was - 1) if was else 0.0, abs(_z(b - a for a, b in means)))


def _lost(pairs: Sequence[tuple[Seen, Seen]]) -> Change | None:
    """`was`: queries expected to be lost by chance, `now`: those that are."""
    levels: dict[str, list[tuple[Seen, Seen]]] = defaultdict(list)
    for a, b in pairs:
        if a.plain and b.plain:
            levels[a.level].append((a, b))
    expected = variance = 0.0
    lost = solved = 0
    for members in levels.values():
        shape = prior([(a.plain_right, a.plain - a.plain_right) for a, _ in members])
        for a, b in members:
            if a.plain_right:
                p = never_again(a.plain_right, a.plain, b.plain, *shape)
                expected, variance = expected + p, variance + p * (1 - p)
                solved, lost = solved + 1, lost + (not b.plain_right)
    if not solved:
        return None
    return Change("lost", expected, lost, (lost - expected) / solved, (lost - expected) / math.sqrt(variance) if variance else 0.0)


def _gap(pairs: Sequence[tuple[Seen, Seen]]) -> Change | None:
    gaps = [(_gap_of(a), _gap_of(b)) for a, b in pairs if a.plain and a.guided and b.plain and b.guided]
    if not gaps:
        return None
    was, now = (sum(g[i] for g in gaps) / len(gaps) for i in (0, 1))
    return Change("gap", was, now, now - was, _z(b - a for a, b in gaps))


def _gap_of(s: Seen) -> float:
    return s.guided_right / s.guided - s.plain_right / s.plain


def _fall(was: float, now: float) -> float:
    return 1 - now / was if was else 0.0

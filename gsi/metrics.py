"""Figures of a run: pure functions, and one line of metrics per iteration recomputed from the run folder's own files."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gsi import stats
from gsi.ledger import Ledger
from gsi.types import SHUFFLE, Query, Rollout

Line = dict[str, Any]
PLAIN = f"(guidance IS NULL OR guidance LIKE '{SHUFFLE}%')"  # in SQL: an attempt without help (see Rollout.guided)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson score); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p, zz = successes / n, z * z / n
    centre = (p + zz / 2) / (1 + zz)
    half = z * math.sqrt(p * (1 - p) / n + zz / (4 * n)) / (1 + zz)
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of solving a query within k draws, from n >= k draws: 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374)."""
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} draws, there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority_right(draws: Sequence[Rollout]) -> bool:
    """Whether the answer that most draws extract is right; of equally frequent ones the earliest counts, and none extracted is wrong.

    Answers are the same where their texts are: `1/2` and `0.5` are two.
    """
    votes = Counter(" ".join(r.extracted.split()) for r in draws if r.extracted)
    if not votes:
        return False
    most = max(votes.values())
    return next(r.correct for r in draws if r.extracted and votes[" ".join(r.extracted.split())] == most)


def above_chance(correct: int, n: int, options: int) -> bool:
    """Whether `correct` right choices of n among so many options are more than guessing gives.

    The exact binomial (Clopper-Pearson) lower 95 % bound of the rate lies above 1/options.
    """
    if options < 2 or not correct:
        return correct > 0
    at_least = sum(math.comb(n, k) * (options - 1) ** (n - k) for k in range(correct, n + 1))  # in units of options ** -n
    return 20 * at_least < options**n


def mean_over_levels(by_level: Mapping[Any, tuple[int, int]]) -> float:
    """Mean over levels of right / asked; `by_level` maps a level (None = no levels) to (right, asked)."""
    rates = [right / asked for right, asked in by_level.values() if asked]
    return sum(rates) / len(rates) if rates else 0.0


def shares(levels: Mapping[int | None, int]) -> dict[int, float]:
    """Share of each level among the entries that have one, from their number by level."""
    counts = {level: n for level, n in levels.items() if level is not None}
    total = sum(counts.values())
    return {level: counts[level] / total for level in sorted(counts)}


def effective_number(counts: Iterable[int]) -> float:
    """exp(entropy) of counts: how many equally frequent queries the training set is worth."""
    values = [c for c in counts if c]
    total = sum(values)
    return math.exp(-sum(c / total * math.log(c / total) for c in values)) if total else 0.0


def flops(parameters: int, prefilled: int, generated: int, trained: int) -> float:
    """Cost in FLOPs: 2 per parameter and token read or generated, 6 per trained token."""
    return 2.0 * parameters * (prefilled + generated) + 6.0 * parameters * trained


# --------------------------------------------------------------------------------------- evaluation results


def evaluation(rows: Sequence[Rollout], ks: Sequence[int], accept: str, avg_at_k: int = 0) -> Line:
    """Results of one task: greedy accuracy (attempt 0) with interval, by level; pass@k, and majority vote over the first k (maj@k), from the sampled attempts.

    With `avg_at_k` every attempt is a sample, and accuracy (`pass@1`, by level too) is the mean over queries of the share that is right.
    """
    if avg_at_k:
        return _sampled_evaluation(rows, ks, accept)
    greedy = [r for r in rows if r.attempt == 0]
    right = sum(r.accepted(accept) for r in greedy)
    levels: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for r in greedy:
        if r.level is not None:
            levels[r.level][0] += r.accepted(accept)
            levels[r.level][1] += 1
    by_level = {level: (a, b) for level, (a, b) in sorted(levels.items())}
    low, high = wilson(right, len(greedy))
    result: Line = {
        "n": len(greedy),
        "pass@1": right / len(greedy) if greedy else 0.0,
        "interval": [low, high],
        "mean_over_levels": mean_over_levels(by_level) if by_level else None,
        "levels": {str(level): {"right": a, "n": b} for level, (a, b) in by_level.items()},
        "answers_right": sum(r.correct for r in greedy),
        "status": dict(Counter(r.status for r in greedy)),
        "tokens": sum(r.generated_tokens for r in rows),
    }
    draws: dict[str, list[Rollout]] = defaultdict(list)
    for r in rows:
        if r.attempt > 0:
            draws[r.query_id].append(r)
    return result | _of_samples(draws, ks, accept)


def _of_samples(draws: Mapping[str, list[Rollout]], ks: Sequence[int], accept: str) -> Line:
    """pass@k and maj@k of the sampled attempts, by query; they are in attempt order."""
    result: Line = {}
    for k in ks:
        if k > 1 and draws:
            result[f"pass@{k}"] = sum(pass_at_k(len(d), sum(r.accepted(accept) for r in d), k) for d in draws.values()) / len(draws)
            result[f"maj@{k}"] = sum(majority_right(d[:k]) for d in draws.values()) / len(draws)
    return result


def _sampled_evaluation(rows: Sequence[Rollout], ks: Sequence[int], accept: str) -> Line:
    draws: dict[str, list[Rollout]] = defaultdict(list)
    for r in rows:
        draws[r.query_id].append(r)
    share = {q: sum(r.accepted(accept) for r in found) / len(found) for q, found in draws.items()}
    mean = sum(share.values()) / len(share) if share else 0.0
    levels: dict[int, list[float]] = defaultdict(lambda: [0.0, 0])
    for q, found in draws.items():
        if found[0].level is not None:
            levels[found[0].level][0] += share[q]
            levels[found[0].level][1] += 1
    by_level = {level: (a, b) for level, (a, b) in sorted(levels.items())}
    result: Line = {
        "n": len(share),
        "pass@1": mean,
        "samples": max(map(len, draws.values()), default=0),  # pass@1 is the mean over so many samples per query
        "interval": list(stats.padded_interval(list(share.values()), (0.0, 1.0), 2)),  # over queries
        "mean_over_levels": sum(a / b for a, b in by_level.values()) / len(by_level) if by_level else None,
        "levels": {str(level): {"right": a, "n": b} for level, (a, b) in by_level.items()},
        "answers_right": sum(r.correct for r in rows),
        "status": dict(Counter(r.status for r in rows)),
        "tokens": sum(r.generated_tokens for r in rows),
    }
    return result | _of_samples(draws, ks, accept)


# --------------------------------------------------------------------------------------- one line per iteration


def accepted_sql(accept: str) -> str:
    """In SQL over the ledger's tables: whether an attempt counts (see Rollout.accepted)."""
    return "correct" if accept == "answer" else "(correct AND steps_ok IS 1)"


class Spent(NamedTuple):
    """What the attempts of one kind (`plain`, or their hint's) at one level cost, and what they gave."""

    kind: str
    level: int | None
    rollouts: int
    accepted: int
    tokens: int  # generated
    prompt_tokens: int


def spent(ledger: Ledger, iteration: int, accept: str) -> list[Spent]:
    """Of one iteration, every kind and level that has an attempt."""
    rows = ledger.query(
        f"SELECT CASE WHEN {PLAIN} THEN 'plain' ELSE substr(guidance, 1, instr(guidance || ':', ':') - 1) END AS kind, level, count(*), "
        f"sum({accepted_sql(accept)}), sum(generated_tokens), sum(prompt_tokens) FROM rollouts WHERE iteration = ? GROUP BY kind, level ORDER BY kind, level",
        (iteration,),
    )
    return [Spent(*row) for row in rows]


def sample_line(ledger: Ledger, iteration: int, queries: Sequence[Query], accept: str, hard: Mapping[str, Sequence[int]]) -> Line:
    """Sampling and coverage figures of the ledger's `iteration`."""
    good = accepted_sql(accept)
    line: Line = {}
    totals = ledger.query(
        f"SELECT count(*), sum(correct), sum({good}), sum(generated_tokens), sum(prompt_tokens), sum(given_tokens), "
        f"sum(NOT {PLAIN}), sum(correct AND steps_ok IS 0), sum(guidance LIKE '{SHUFFLE}%') FROM rollouts WHERE iteration = ?",
        (iteration,),
    )[0]
    names = ("rollouts", "correct", "accepted", "tokens", "prompt_tokens", "given_tokens", "guided", "lucky", "shuffled")
    line |= {f"sample/{name}": value or 0 for name, value in zip(names, totals, strict=True) if value or name != "shuffled"}
    for status, count in ledger.query(
        "SELECT status, count(*) FROM rollouts WHERE iteration = ? GROUP BY status ORDER BY status", (iteration,)
    ):
        line[f"sample/status/{status}"] = count
    for part in spent(ledger, iteration, accept):
        groups = [f"sample/{part.kind}"]
        if part.level is not None:
            groups += [f"sample/level_{part.level}", f"sample/{part.kind}/level_{part.level}"]
        for group in groups:
            for name in ("rollouts", "accepted", "tokens", "prompt_tokens"):
                line[f"{group}/{name}"] = line.get(f"{group}/{name}", 0) + getattr(part, name)
    calls, asked, answered = ledger.query(
        "SELECT count(*), sum(prompt_tokens), sum(generated_tokens) FROM teacher_calls WHERE iteration = ?", (iteration,)
    )[0]
    if calls:
        line |= {"teacher/calls": calls, "teacher/prompt_tokens": asked, "teacher/tokens": answered}
    scored, mean, low, tokens = ledger.query(
        "SELECT count(*), avg(reliance), min(reliance), sum(tokens) FROM scores WHERE iteration = ?", (iteration,)
    )[0]
    if scored:
        line |= {"gate/scored": scored, "score/tokens": tokens} | (
            {} if mean is None else {"gate/reliance": mean, "gate/reliance_min": low}
        )
    solved = {q for (q,) in ledger.query(f"SELECT DISTINCT query_id FROM rollouts WHERE iteration = ? AND {good}", (iteration,))}
    if choices := {q.id: len(q.options) for q in queries if q.options}:
        counts = ledger.query(
            f"SELECT query_id, sum({good} AND {PLAIN}), sum({PLAIN}) FROM rollouts WHERE iteration = ? GROUP BY query_id", (iteration,)
        )  # an attempt that saw a hint, perhaps the answer, says nothing of chance
        guessed = {q for q, right, n in counts if q in choices and q in solved and not above_chance(right, n, choices[q])}
        solved -= guessed
        line["tail/at_chance"] = len(guessed) / len(queries)
    line["sample/queries"] = len(queries)
    line |= _by_level("tail/coverage", queries, lambda q: q.id in solved, hard)
    asked = {q for (q,) in ledger.query("SELECT DISTINCT query_id FROM rollouts WHERE iteration = ?", (iteration,))}
    if 0 < len(asked) < len(queries):  # an allocation left some out: they count as not covered above, and as not asked here
        line["sample/skipped"] = len(queries) - len(asked)
        line |= {k: v for k, v in _by_level("sample/skipped_share", queries, lambda q: q.id not in asked, {}).items() if v}
        line["tail/coverage_asked"] = len(solved & asked) / len(asked)
    return line


def hint_line(ledger: Ledger, iteration: int, accept: str) -> Line:
    """By kind of hint: its sizes (share given, where the label has one), and of accepted responses how much was given; and the yield of it all."""
    line: Line = {}
    good = accepted_sql(accept)
    rows = ledger.query(
        f"SELECT query_id, guidance, {good}, given_tokens, generated_tokens FROM rollouts WHERE iteration = ? AND NOT {PLAIN}", (iteration,)
    )
    tried: dict[str, list[float]] = defaultdict(list)
    worked: dict[str, list[float]] = defaultdict(list)
    fifths: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    smallest: dict[str, dict[str, float]] = defaultdict(dict)
    shares_: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for query_id, label, accepted, given, generated in rows:
        kind, _, text = label.partition(":")
        if accepted:
            shares_[kind][0] += given
            shares_[kind][1] += given + generated
        try:
            size = float(text)
        except ValueError:
            continue  # a kind without sizes
        tried[kind].append(size)
        fifth = fifths[f"sample/{kind}/size_{min(4, int(size * 5 + 1e-9)) / 5:g}"]
        fifth[0] += 1
        if accepted:
            fifth[1] += 1
            worked[kind].append(size)
            smallest[kind][query_id] = min(size, smallest[kind].get(query_id, size))
    for kind in sorted(tried):
        line[f"sample/{kind}/size"] = sum(tried[kind]) / len(tried[kind])
        if worked[kind]:
            line[f"sample/{kind}/size_accepted"] = sum(worked[kind]) / len(worked[kind])
            line[f"sample/{kind}/size_smallest"] = sum(smallest[kind].values()) / len(smallest[kind])
    for name, (n, right) in sorted(fifths.items()):
        line |= {f"{name}/rollouts": n, f"{name}/accepted": right}
    line |= {f"sample/{kind}/given_share": given / all_ for kind, (given, all_) in sorted(shares_.items()) if all_}
    own, spent = ledger.query(
        f"SELECT sum(CASE WHEN {good} THEN 1.0 * generated_tokens / max(1, given_tokens + generated_tokens) END), sum(generated_tokens) "
        "FROM rollouts WHERE iteration = ?",
        (iteration,),
    )[0]
    if spent:
        line["sample/yield"] = 1000 * (own or 0.0) / spent  # accepted rationales, each by the share the model wrote, per 1000 tokens
    return line


def train_line(
    rows: Counter[str], tokens: int, dropped: Counter[str], queries: Mapping[str, Query], hard: Mapping[str, Sequence[int]]
) -> Line:
    """Figures of a training set given as rows per query id and trained tokens in all, beside the queries' own level shares."""
    known = {q: count for q, count in rows.items() if q in queries}
    line: Line = {"train/rows": rows.total(), "train/tokens_per_epoch": tokens}
    line |= {f"train/dropped/{reason}": count for reason, count in sorted(dropped.items())}
    levels: Counter[int | None] = Counter()
    for q, count in known.items():
        levels[queries[q].level] += count
    line |= {f"tail/share/level_{level}": share for level, share in shares(levels).items()}
    line |= {f"tail/query_share/level_{level}": share for level, share in shares(Counter(q.level for q in queries.values())).items()}
    if any(hard.values()) and known:
        in_tail = sum(count for q, count in known.items() if queries[q].level in hard.get(queries[q].task, ()))
        line["tail/hard_share"] = in_tail / sum(known.values())
        line["tail/query_hard_share"] = sum(q.level in hard.get(q.task, ()) for q in queries.values()) / len(queries)
    line["tail/effective_queries"] = effective_number(rows.values())
    return line


def _by_level(name: str, queries: Sequence[Query], solved: Any, hard: Mapping[str, Sequence[int]]) -> Line:
    """Share of queries for which solved(q), overall, by level and over the hard levels."""
    groups: dict[str, list[bool]] = {name: [solved(q) for q in queries]}
    for q in queries:
        if q.level is not None:
            groups.setdefault(f"{name}/level_{q.level}", []).append(solved(q))
        if q.level in hard.get(q.task, ()):
            groups.setdefault("tail/hard_coverage", []).append(solved(q))
    return {key: sum(values) / len(values) for key, values in sorted(groups.items()) if values}

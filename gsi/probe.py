"""`gsi run --dry-run --probe N`: samples N training queries as the run would, to know what all of them will take."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean

from gsi import advice, stages
from gsi.allocation import bounds
from gsi.config import Config
from gsi.cost import Load, Range, bootstrap
from gsi.loop import open_run
from gsi.progress import Reporter
from gsi.seeds import seed_of
from gsi.types import Rollout

BARS = 20  # characters of the longest bar


def probe(config: Config, load: Load, n: int) -> tuple[Load, list[str]]:
    """The load with what n queries, drawn by the run's seed, took under the run's own strategy; and what to say of them.

    Attempts and rows become 95 % intervals over the queries (bootstrap) of the initial model; later iterations are taken to
    need as much. The rate at which the engine generated is measured too. Nothing is kept.
    """
    nothing = [f"probe: strategy {config.strategy} draws no attempts, so there is nothing to measure"]
    if not bounds(config)[1]:
        return load, nothing
    with tempfile.TemporaryDirectory() as scratch:
        # nothing outside the scratch folder: the run would go on from what a mirror kept of the probe
        alone = {"output_dir": str(Path(scratch) / "probe"), "warm_start": None, "mirror": None, "report_to": "none"}
        with open_run(config.model_copy(update=alone), reporter=Reporter("quiet")) as ctx:
            chosen = sorted(ctx.data.train, key=lambda q: seed_of(config.seed, "probe", q.id))[:n]
            ctx.data = replace(ctx.data, train=sorted(chosen, key=lambda q: q.id))
            ctx.folder.set_model(0, ctx.base)
            before = dict(ctx.clock)
            stages.sample(ctx, 1)
            rows: dict[str, list[Rollout]] = defaultdict(list)
            for r in ctx.folder.ledger.rows(0):
                rows[r.query_id].append(r)
            seconds = ctx.clock.get("engine_run", 0.0) - before.get("engine_run", 0.0)
            warnings = advice.after_sampling(ctx.folder.ledger, 0, config)
    flat = [r for found in rows.values() for r in found]
    if not flat:
        return load, nothing
    attempts = bootstrap([len(found) for found in rows.values()], config.seed)
    tokens = bootstrap([sum(r.generated_tokens for r in found) for found in rows.values()], config.seed)
    accepted = bootstrap([sum(r.accepted(config.accept) for r in found) for found in rows.values()], config.seed)
    response, prompt = tokens[0] / attempts[0], mean(r.prompt_tokens for r in flat)
    kept = [r.given_tokens + r.generated_tokens for r in flat if r.accepted(config.accept)]
    size = load.queries
    measured = replace(
        load, attempts=Range(size * tokens[1] / response, size * tokens[2] / response), rows=Range(size * accepted[1], size * accepted[2]),
        prompt=prompt, response=response, row=mean(kept) if kept else response, decode_rate=sum(r.generated_tokens for r in flat) / seconds if seconds else None,
    )  # fmt: skip
    return measured, _say(config, rows, flat, attempts[0], accepted[0]) + warnings


def _say(config: Config, rows: dict[str, list[Rollout]], flat: list[Rollout], attempts: float, accepted: float) -> list[str]:
    plain = {q: [r for r in found if not r.guided] for q, found in rows.items()}
    bins = Counter(min(int(10 * mean(r.accepted(config.accept) for r in found)), 9) for found in plain.values())
    lines = [
        f"probe: {len(rows)} questions, {len(flat)} attempts ({attempts:.1f} per question, {accepted:.1f} accepted)",
        "pass rate of the plain attempts:",
    ]
    for i in range(10):
        bar = "#" * round(BARS * bins[i] / max(bins.values()))
        lines.append(f"  {i / 10:.1f} to {(i + 1) / 10:.1f}  {bins[i]:4d} {bar}")
    lengths = sorted(r.generated_tokens for r in flat)
    status = Counter(r.status for r in flat)
    lines.append(
        f"tokens per response: mean {mean(lengths):.0f}, median {lengths[len(lengths) // 2]}, 95 % below {lengths[int(0.95 * (len(lengths) - 1))]}"
    )
    lines.append(f"truncated: {status['truncated'] / len(flat):.1%}; no answer found: {status['no_answer'] / len(flat):.1%}")
    return lines

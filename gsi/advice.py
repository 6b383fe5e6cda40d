"""What is said of a sampling pass once it is over: what it cost, responses that are cut off, and data that is too easy to have a tail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gsi.config import Config
from gsi.ledger import Ledger
from gsi.metrics import PLAIN, Spent, accepted_sql

TRUNCATED, TOO_EASY = 0.10, 0.85  # shares from which a warning is given
HARDER = (
    "AIME (HuggingFaceH4/aime_2024; question: problem, rationale: solution), Omni-MATH (KbsdJames/Omni-MATH; question: problem, rationale: solution, level: difficulty), Big-Math "
    "(SynthLabsAI/Big-Math-RL-Verified; question: problem) or DAPO-17k (BytedTsinghua-SIA/DAPO-Math-17k; answer: reward_model.ground_truth); check them "
    "against your test sets first: gsi tasks overlap TRAIN TEST"
)


def after_sampling(ledger: Ledger, iteration: int, config: Config) -> list[str]:
    """What the plain attempts of one iteration say about the settings; empty = nothing to warn of."""
    counts = ledger.query(
        f"SELECT count(*), sum({accepted_sql(config.accept)}), sum(status = 'truncated') FROM rollouts WHERE iteration = ? AND {PLAIN}",
        (iteration,),
    )
    n, right, truncated = counts[0]
    found: list[str] = []
    if n and truncated > TRUNCATED * n:
        found.append(
            f"warning: {truncated / n:.0%} of the plain responses were cut off at {config.sample.max_new_tokens} tokens, and none of these can be "
            "right; raise sample.max_new_tokens, or set sample.stop or sample.repetition_stop"
        )
    if n and iteration == 0 and right > TOO_EASY * n:
        found.append(
            f"warning: the model begins with {right / n:.0%} of the plain responses right: there is no tail here to save, and little to gain. "
            f"Harder data by column mapping: {HARDER}"
        )
    return found


def spent_lines(spent: Sequence[Spent], engine: Mapping[str, float]) -> list[str]:
    """What an iteration's sampling cost: tokens per accepted response by kind of help and by level, and what the engine counted."""

    def price(parts: Iterable[Spent]) -> str:
        tokens, accepted = (sum(values) for values in zip(*((p.tokens, p.accepted) for p in parts), strict=True))
        return f"{tokens / accepted:,.0f}" if accepted else "none accepted"

    def each(names: Iterable[Any], of: Callable[[Spent], Any]) -> str:
        return ", ".join(f"{name} {price(p for p in spent if of(p) == name)}" for name in names)

    lines, levels = [], sorted({p.level for p in spent if p.level is not None})
    if spent:
        kinds = sorted({p.kind for p in spent}, key=lambda kind: (kind != "plain", kind))
        by_level = f"; by level: {each(levels, lambda p: p.level)}" if levels else ""
        lines.append(f"tokens per accepted response: {price(spent)} ({each(kinds, lambda p: p.kind)}){by_level}")
    if engine.get("seconds"):
        busy = (
            f", busy {1 - engine['idle_seconds'] / engine['seconds']:.0%} of {engine['seconds']:,.0f} s" if "idle_seconds" in engine else ""
        )
        computed, reused = engine.get("prefill_tokens", 0), engine.get("reused_tokens", 0)
        lines.append(
            f"engine: {engine.get('decode_tokens', 0):,.0f} tokens generated, prompt tokens {computed:,.0f} computed and {reused:,.0f} reused{busy}"
        )
    return lines

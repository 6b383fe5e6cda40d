"""Warnings from what was sampled: responses that are cut off, and data that is too easy to have a tail."""

from __future__ import annotations

from gsi.config import Config
from gsi.ledger import Ledger
from gsi.metrics import PLAIN, accepted_sql

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

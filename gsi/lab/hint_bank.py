"""How policies that choose hints compare when the model stays the same: outcomes are drawn once, policies replayed on them in seconds.

    python -m gsi.lab.hint_bank runs/hint-bank [--seeds 1 2]

Draws 8 attempts of the chain task's base model at every opening of hard questions (the bank, a ledger per seed, resumable; two to four minutes
each), then lets allocations and guidances play on it, three times per seed: iteration 1 knows nothing, iteration 2 remembers iteration 1. What a policy
gets by its choices is seen here, with little noise; what training makes of it is not (see `gsi.lab.hints`).
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gsi.allocation import Quota
from gsi.allocation.stepwise import Stepwise
from gsi.guidance.adaptive import READ, Adaptive
from gsi.guidance.controllers import Curve, Moving, fit
from gsi.guidance.ladder import Ladder, Opening
from gsi.guidance.state_reset import StateReset
from gsi.lab import chain
from gsi.lab.command import end
from gsi.ledger import Ledger
from gsi.prompts import Renderer
from gsi.types import Allocation, Guidance, Hint, Past, Plan, Query, Rollout, Sampling, Tried

DRAWS = 8  # per question and opening
PER_LEVEL = 15
REPLAYS = 3
Bank = Mapping[str, Mapping[float, Sequence[Rollout]]]  # query id -> size given -> outcomes
Arm = tuple[Allocation, Guidance]
COLUMNS = {  # name -> what it is, over the hard questions
    "solved": "questions with an accepted rationale that is right in every step, share",
    "per ktoken": "questions so solved, per 1000 generated tokens",
    "yield": "accepted rationales per 1000 generated tokens, each by the share of it that the model wrote",
    "given": "share of the tokens of accepted guided responses that was given",
    "lucky": "share of accepted responses with a wrong step",
    "tokens": "generated, per question",
}


@dataclass(frozen=True)
class Everything:
    """Allocation and guidance in one: `DRAWS` attempts at every opening, and plain ones."""

    cutter: StateReset

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan:
        return Plan(DRAWS * (1 + len(self.cutter.openings(query))), guided=True)

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        if index < DRAWS:
            return None
        given, size = self.cutter.openings(query)[index // DRAWS - 1]
        return Hint(f"adaptive:{size:g}", given=given)


def draw(folder: Path, seed: int) -> tuple[list[Query], Bank, StateReset]:
    """The bank of one base model: hard questions, outcomes by size, and what cuts their references."""
    import torch
    from transformers import AutoTokenizer

    from gsi.engines.transformers import TransformersEngine
    from gsi.lab.base import resolve
    from gsi.sampling import Sampler
    from gsi.verify import make_grader

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    model = str(resolve(f"lab:chain:{seed}"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = Renderer(tokenizer, "{question}")
    everything = Everything(StateReset(renderer))
    queries = chain.queries(seed, PER_LEVEL, chain.HARD_LEVELS)
    ledger, grader = Ledger(folder / f"seed-{seed}.sqlite"), make_grader({"chain": None})
    engine = TransformersEngine(model, tokenizer, device="cpu", dtype="float32")
    sampler = Sampler(
        queries, iteration=0, allocation=everything, guidance=everything, renderer=renderer, grader=grader, ledger=ledger,
        sampling=lambda attempt: Sampling(max_new_tokens=96), seed=99, strategy="bank", model=model, accept="steps",
    )  # fmt: skip
    with sampler:
        engine.run(sampler)
    bank: dict[str, dict[float, list[Rollout]]] = defaultdict(lambda: defaultdict(list))
    for r in ledger.rows():
        size = READ(r.guidance)
        assert size is not None
        bank[r.query_id][size].append(r)
    for part in (engine, grader, ledger):
        part.close()
    return queries, bank, everything.cutter


def arms(cutter: StateReset, accept: str, past: Past) -> dict[str, Arm]:
    quota = Quota(8, 4, 8, accept)
    step, pair = (Stepwise(8, 4, 8, accept, group=n, past=past) for n in (1, 2))
    moving = Adaptive(cutter, Moving(), past, accept)

    def curve(target: float) -> Adaptive:
        return Adaptive(cutter, fit(Curve(target), past, READ), past, accept)

    def ladder(*parts: float) -> Ladder:
        return Ladder({f"part_{part:.2f}": Opening(cutter, part) for part in parts}, past, accept)

    return {
        "state_reset, quota": (quota, StateReset(cutter.renderer)),
        "state_reset, stepwise": (step, StateReset(cutter.renderer)),
        "adaptive moving, quota": (quota, moving),
        "adaptive moving, group 2": (pair, moving),
        "adaptive moving, stepwise": (step, moving),
        "adaptive curve 0.5, stepwise": (step, curve(0.5)),
        "adaptive curve 0.7, stepwise": (step, curve(0.7)),
        "adaptive curve 0.85, stepwise": (step, curve(0.85)),
        "ladder 1/3, 2/3": (step, ladder(1 / 3, 2 / 3)),
        "ladder 1/3, all before the answer": (step, ladder(1 / 3, 1)),
    }


def play(queries: Sequence[Query], bank: Bank, arm: Arm, accept: str, rng: random.Random, iteration: int) -> tuple[dict[str, float], Past]:
    """Figures of one iteration, and what the next one remembers of it. Outcomes are drawn from the bank with replacement."""
    allocation, guidance = arm
    n: Counter[str] = Counter()
    own, past = 0.0, {}
    for query in queries:
        history: list[Rollout] = []
        launched: list[Rollout] = []
        index = 0
        while (plan := allocation.plan(query, history)).total > len(history):
            while len(launched) < plan.total:
                hint = guidance.hint(query, history, index) if plan.guided else None
                index += plan.guided
                size = float(hint.label.partition(":")[2]) if hint else 0.0
                outcome = rng.choice(bank[query.id][size])
                launched.append(replace(outcome, guidance=hint.label if hint else None, iteration=iteration, attempt=len(launched)))
            history.append(launched[len(history)])
        good = [r for r in history if r.accepted(accept)]
        n["solved"] += any(r.steps_ok is True for r in good)
        n["tokens"] += sum(r.generated_tokens for r in history)
        n["accepted"] += len(good)
        n["lucky"] += sum(r.steps_ok is not True for r in good)
        n["given"] += sum(r.given_tokens for r in good if r.guided)
        n["whole"] += sum(r.given_tokens + r.generated_tokens for r in good if r.guided)
        own += sum(r.generated_tokens / (r.given_tokens + r.generated_tokens) for r in good)
        past[query.id] = [Tried(iteration, r.attempt, r.guidance, r.accepted(accept)) for r in history]
    figures = {
        "solved": n["solved"] / len(queries),
        "per ktoken": 1000 * n["solved"] / n["tokens"],
        "yield": 1000 * own / n["tokens"],
        "given": n["given"] / max(1, n["whole"]),
        "lucky": n["lucky"] / max(1, n["accepted"]),
        "tokens": n["tokens"] / len(queries),
    }
    return figures, past


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gsi.lab.hint_bank")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    banks = [draw(args.output, seed) for seed in args.seeds]
    print(f"| accept | policy | {' | '.join(COLUMNS)} |\n|{'---|' * (2 + len(COLUMNS))}")
    for accept in ("steps", "answer"):
        for name in arms(banks[0][2], accept, {}):
            found: dict[tuple[str, int], list[float]] = defaultdict(list)
            for queries, bank, cutter in banks:
                for replay in range(REPLAYS):
                    past: Past = {}
                    for iteration in (0, 1):
                        rng = random.Random(f"{replay}/{iteration}")
                        figures, past = play(queries, bank, arms(cutter, accept, past)[name], accept, rng, iteration)
                        for key, value in figures.items():
                            found[key, iteration].append(value)
            cells = []
            for key in COLUMNS:
                means = (sum(found[key, i]) / len(found[key, i]) for i in (0, 1))
                cells.append(" → ".join(f"{m:.0f}" if key == "tokens" else f"{m:.2f}" for m in means))
            print(f"| {accept} | {name} | {' | '.join(cells)} |", flush=True)
    print("\niteration 1 → iteration 2;", "; ".join(f"{key}: {meaning}" for key, meaning in COLUMNS.items()))
    return 0


if __name__ == "__main__":
    end(main)

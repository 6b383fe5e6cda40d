"""What came of a run, in sentences and in the two figures they stand on."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gsi.metrics import wilson
from gsi.report.read import RunView, finite


class Accuracy(NamedTuple):
    """Share of questions that are solved greedily, or, with `evaluate.avg_at_k`, of samples, with its 95 % interval over questions."""

    rate: float
    asked: int
    low: float
    high: float

    @property
    def interval(self) -> str:
        return f"{self.low:.1%} to {self.high:.1%}"


def sentence(run: RunView) -> str:
    """The result in one sentence, then the tail, then the cost; candid about nothing learned."""
    return " ".join(part for part in (result(run), tail(run), cost(run)) if part)


def result(run: RunView) -> str:
    """What became of the accuracy."""
    n, parts = run.final().get("iteration", 0), []
    for split in ("test", "validation"):
        first, last = accuracy(run, 0, split), accuracy(run, n, split)
        if first and last and n:
            verb = "rose" if last.low > first.rate else "fell" if last.high < first.rate else "went"
            parts.append(
                f"{split} accuracy {verb} from {first.rate:.1%} to {last.rate:.1%} (95 % interval {last.interval}, {last.asked:,} questions)"
            )
            if last.rate == 0:
                parts.append(f"the model solves none of the {split} questions")
    text = "; ".join(parts) or "nothing was evaluated before and after"
    return f"{text[0].upper()}{text[1:]}."


def tail(run: RunView) -> str:
    """What became of the hard questions and of coverage."""
    parts = []
    hard = [(line["iteration"], line["tail/hard_share"]) for line in run.metrics if finite(line.get("tail/hard_share")) is not None]
    if hard:
        own = finite(run.final().get("tail/query_hard_share"))
        before = f", after {hard[0][1]:.1%} in iteration {hard[0][0]}" if len(hard) > 1 else ""
        parts.append(
            f"hard questions are {hard[-1][1]:.1%} of the training rows{before}"
            + (f" ({own:.1%} of the questions are hard)" if own is not None else "")
        )
    covered = [line["tail/coverage"] for line in run.metrics if finite(line.get("tail/coverage")) is not None]
    if covered:
        parts.append(
            f"{covered[-1]:.1%} of the training questions are covered in the last iteration"
            + (f", {covered[0]:.1%} in the first" if len(covered) > 1 else "")
        )
    return f"The tail: {'; '.join(parts)}." if parts else ""


def cost(run: RunView) -> str:
    return f"{run.total('sample/accepted'):,} rollouts of {run.total('sample/rollouts'):,} were accepted, {run.total('sample/tokens'):,} tokens generated."


def accuracy(run: RunView, n: int, split: str = "validation") -> Accuracy | None:
    """Of an iteration over all tasks of a split; None where it was not evaluated."""
    results = list(run.evals.get(n, {}).get(split, {}).values())
    total = sum(r["n"] for r in results)
    if not total:
        return None
    rate = sum(r["pass@1"] * r["n"] for r in results) / total
    if not any(map(samples, results)):
        return Accuracy(rate, total, *wilson(round(rate * total), total))
    # of a weighted mean, from each part's own limits (Zou and Donner 2008, MOVER); of one task these are its limits
    parts = [(r["n"] / total, r["pass@1"], *of_task(r)[2:]) for r in results]
    down, up = (math.hypot(*(w * (part[i] - p) for w, p, *part in parts)) for i in (0, 1))
    return Accuracy(rate, total, max(0.0, rate - down), min(1.0, rate + up))


def of_task(result: dict[str, Any]) -> Accuracy:
    """Of one task, as eval.json has it."""
    rate, n, own = result["pass@1"], result["n"], result.get("interval")
    low, high = wilson(round(rate * n), n)
    if samples(result) and isinstance(own, list) and len(own) == 2 and all(finite(x) is not None for x in own) and own[0] < own[1]:
        low, high = own  # without a width it was written before it had a floor
    return Accuracy(rate, n, low, high)


def samples(result: dict[str, Any]) -> int:
    """Samples per question that a result is the mean of; 0 = greedy."""
    return int(finite(result.get("samples")) or 0)


def hard_accuracy(run: RunView, n: int) -> float | None:
    """Accuracy over the hard levels, on test where there is one, else on validation."""
    results = run.evals.get(n, {})
    right = asked = 0
    for task, result in (results.get("test") or results.get("validation") or {}).items():
        for level, counts in result["levels"].items():
            if int(level) in run.hard_levels.get(task, ()):
                right, asked = right + counts["right"], asked + counts["n"]
    return right / asked if asked else None

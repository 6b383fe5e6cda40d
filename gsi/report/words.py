"""What came of a run, in sentences and in the two figures they stand on."""

from __future__ import annotations

from gsi.metrics import wilson
from gsi.report.read import RunView, finite


def sentence(run: RunView) -> str:
    """The result in one sentence, then the tail, then the cost; candid about nothing learned."""
    return " ".join(part for part in (result(run), tail(run), cost(run)) if part)


def result(run: RunView) -> str:
    """What became of the accuracy."""
    n, parts = run.final().get("iteration", 0), []
    for split in ("test", "validation"):
        first, last = accuracy(run, 0, split), accuracy(run, n, split)
        if first and last and n:
            (a, _), (b, asked) = first, last
            low, high = wilson(round(b * asked), asked)
            verb = "rose" if low > a else "fell" if high < a else "went"
            parts.append(f"{split} accuracy {verb} from {a:.1%} to {b:.1%} (95 % interval {low:.1%} to {high:.1%}, {asked:,} questions)")
            if b == 0:
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


def accuracy(run: RunView, n: int, split: str = "validation") -> tuple[float, int] | None:
    """(greedy accuracy, questions) of an iteration over all tasks of a split; None where it was not evaluated."""
    results = run.evals.get(n, {}).get(split, {}).values()
    total = sum(r["n"] for r in results)
    return (sum(r["pass@1"] * r["n"] for r in results) / total, total) if total else None


def hard_accuracy(run: RunView, n: int) -> float | None:
    """Greedy accuracy over the hard levels, on test where there is one, else on validation."""
    results = run.evals.get(n, {})
    right = asked = 0
    for task, result in (results.get("test") or results.get("validation") or {}).items():
        for level, counts in result["levels"].items():
            if int(level) in run.hard_levels.get(task, ()):
                right, asked = right + counts["right"], asked + counts["n"]
    return right / asked if asked else None

"""`python -m gsi.lab.summary STUDY.yaml`: one JSON line, the means over seeds of every arm (words as in the metrics of a run)."""

from __future__ import annotations

import json
import sys
from statistics import fmean

from gsi.lab.command import end
from gsi.lab.matrix import arms, load_study
from gsi.lab.outcomes import Table, cost, tables, tokens
from gsi.lab.study import Results


def summary(table: Table) -> dict[str, dict[str, float]]:
    """accuracy (greedy, final model, mean over levels, fresh queries), hard_accuracy, hard_share (last training rows), coverage (last iteration),
    tokens (generated over the run), cost (FLOPs over the run)."""
    found = {}
    for arm in arms(table.study):
        runs = list(table.arms.get(arm, {}).values())
        if runs:
            found[arm] = {
                "accuracy": fmean(table.accuracy(r) for r in runs),
                "hard_accuracy": fmean(table.accuracy(r, -1, "hard") for r in runs),
                "hard_share": fmean(table.hard_share(r, -1) for r in runs),
                "coverage": fmean(r["iterations"][-1]["tail"]["tail/coverage"] for r in runs),
                "tokens": fmean(tokens(r) for r in runs),
                "cost": fmean(cost(r) for r in runs),
            }
    return found


def main() -> int:
    study, _ = load_study(sys.argv[1])
    print(json.dumps(summary(tables(study, Results(study.results))[0])))
    return 0


if __name__ == "__main__":
    end(main)

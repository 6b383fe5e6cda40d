"""What a hint has to be: guidances and controllers side by side on the chain task, in real runs.

    python -m gsi.lab.hints runs/hints [--seeds 1 2] [--accept steps answer] [--arms adaptive curve ladder ...]

Prints one line per arm and rule of acceptance, means over the seeds. Resumes: a run that is there is not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from gsi.files import read_json
from gsi.lab.chain import HARD_LEVELS
from gsi.lab.command import end
from gsi.ledger import connect
from gsi.loop import run
from gsi.metrics import PLAIN
from gsi.progress import Reporter, table_console

ARMS: dict[str, dict[str, Any]] = {
    "state_reset": {"strategy": "state_reset"},
    "state_reset, stepwise": {"strategy": "state_reset", "allocation": {"kind": "stepwise"}},
    "adaptive, moving": {"strategy": "adaptive", "guidance": {"controller": "moving"}},
    "adaptive, curve": {"strategy": "adaptive", "guidance": {"controller": "curve"}},
    "ladder": {"strategy": "ladder", "guidance": {"rungs": ["short", "long"]}},  # this base reads no cue, no answer, no rationale
    "own_prefix": {"strategy": "own_prefix"},
}
COLUMNS = {  # name -> what it is
    "solved": "hard questions with a rationale that is right in every step, share, last iteration",
    "per ktoken": "hard questions so solved (each counted per iteration) per 1000 tokens generated for hard questions",
    "tokens": "generated for hard questions, both iterations",
    "given": "share of the tokens of accepted guided responses to hard questions that was given",
    "lucky": "share of accepted responses to hard questions with a wrong step",
    "accuracy": "greedy on fresh hard questions, every step right, final model",
}


def config(output: Path, accept: str, seed: int, arm: str) -> dict[str, Any]:
    return {
        "model": f"lab:chain:{seed}",
        "output_dir": str(output / f"{accept}-s{seed}-{arm.replace(', ', '-')}"),
        "seed": seed,
        "iterations": 2,
        "accept": accept,
        "tasks": [{"name": "chain", "args": {"seed": seed, "per_level": 40}}],
        "prompt": {"template": "{question}"},
        "sample": {"max_new_tokens": 96},
        "train": {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "micro_batch_size": 16},
        "evaluate": {"validation": 0, "perplexity_rows": 0, "tasks": [{"name": "chain", "args": {"seed": seed + 1000, "per_level": 40}}]},
        "keep_models": "last",
    } | ARMS[arm]


def figures(path: Path, accept: str) -> dict[str, float]:
    """The columns of one run."""
    solved: dict[int, set[str]] = defaultdict(set)
    hard: set[str] = set()
    tokens = given = whole = lucky = accepted = 0
    query = f"SELECT query_id, iteration, NOT {PLAIN}, correct, steps_ok, given_tokens, generated_tokens FROM rollouts WHERE level IN {HARD_LEVELS}"
    with connect(path / "ledger.sqlite", read_only=True) as db:
        for query_id, iteration, guided, correct, steps, handed, generated in db.execute(query):
            hard.add(query_id)
            tokens += generated
            if correct and steps:
                solved[iteration].add(query_id)
            if correct and (steps or accept == "answer"):
                accepted += 1
                lucky += not steps
                if guided:
                    given, whole = given + handed, whole + handed + generated
        right = (
            "SELECT avg(correct AND steps_ok IS 1) FROM evaluations WHERE split = 'test' AND attempt = 0 AND iteration = 2 AND level IN "
        )
        accuracy = db.execute(f"{right}{HARD_LEVELS}").fetchone()[0]
    return {
        "solved": len(solved[1]) / len(hard),
        "per ktoken": 1000 * sum(map(len, solved.values())) / tokens,
        "tokens": tokens,
        "given": given / whole if whole else 0.0,
        "lucky": lucky / max(1, accepted),
        "accuracy": accuracy,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gsi.lab.hints")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--accept", nargs="+", default=["steps", "answer"], choices=["steps", "answer"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    args = parser.parse_args()
    table, console = Table("accept", "arm", *COLUMNS), table_console()
    for accept in args.accept:
        for arm in args.arms:
            found = []
            for seed in args.seeds:
                settings = config(args.output, accept, seed, arm)
                path = Path(settings["output_dir"])
                if not (path / "run.json").exists() or "test" not in read_json(path / "run.json")["stages"]:
                    run(settings, reporter=Reporter("quiet"))
                found.append(figures(path, accept))
                print(f"{path.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in found[-1].items()), file=sys.stderr, flush=True)
            mean = {name: fmean(f[name] for f in found) for name in COLUMNS}
            table.add_row(accept, arm, *(f"{v:,.0f}" if k == "tokens" else f"{v:.3f}" for k, v in mean.items()))
    console.print(table)
    for name, meaning in COLUMNS.items():
        console.print(f"{name}: {meaning}", markup=False)
    return 0


if __name__ == "__main__":
    end(main)

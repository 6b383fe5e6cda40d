"""`python -m gsi.bench.scale QUERIES...`: what the driver takes for a whole iteration as queries grow, with an engine that answers at once.

For every number, a process of its own: 10 attempts at each query, graded, written to the ledger, curated, counted, reported;
the training does nothing. One JSON line each: rollouts per second of the clock and of the processor while sampling, seconds of
processor time of every phase, peak memory of the process at the end of each. Two or more numbers: a last line with what GOAL queries
would take by the line through the two largest. `--check`: exit code 1 where twice the queries cost much more than twice the processor
time, or where that memory is above LIMIT.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gsi.types import Query, Request, TrainJob

ATTEMPTS, LEVELS = 10, 10
PHASES = ("sample", "curate", "metrics", "report")
GOAL, LIMIT = 2_000_000, 4096  # queries, and MB that the driver may take for them
SLACK = 1.6  # how much more than in proportion twice the queries may cost (timings on a busy machine)


def respond(request: Request, model: str) -> str:
    """Right the less often the harder the level; about the length of a short rationale."""
    right = (request.seed % 1000) / 1000 < 1.0 - 0.09 * (request.query.level or 1)
    answer = request.query.answer if right else "1234567"
    return f"First we take what is given and add it up, line by line; then we carry what is left over to the next. The answer is {answer}."


def train(job: TrainJob) -> dict[str, float]:
    Path(job.output).mkdir(parents=True)
    (Path(job.output) / "model.txt").write_text("the same", encoding="utf-8")
    return {"loss": 0.0}


def one(n: int) -> dict[str, Any]:
    """The figures of one run over n queries, in this process."""
    from gsi import stages, trainset
    from gsi.config import load_config
    from gsi.loop import open_run
    from gsi.metrics_file import write_metrics
    from gsi.progress import Reporter
    from gsi.report.html import write_report

    queries = [Query(f"q{i}", "made", f"What is {i} plus {i % 97}?", str(i + i % 97), level=1 + i % LEVELS) for i in range(n)]
    figures: dict[str, Any] = {"queries": n, "rollouts": n * ATTEMPTS}

    def phase(name: str, run: Callable[[], Any]) -> float:
        clock, cpu = time.perf_counter(), time.process_time()
        run()
        figures[f"{name}_cpu_s"] = round(time.process_time() - cpu, 2)
        figures[f"{name}_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # ru_maxrss in kB
        print(f"{name}: {figures[f'{name}_cpu_s']} s, {figures[f'{name}_peak_mb']} MB", file=sys.stderr, flush=True)
        return time.perf_counter() - clock

    with tempfile.TemporaryDirectory() as folder:
        here = Path(__file__)
        config = load_config(
            {
                "model": "made", "output_dir": f"{folder}/run", "iterations": 1, "tasks": [{"name": "gsm8k"}], "prompt": {"template": "{question} "},
                "sample": {"k": ATTEMPTS, "wanted": 0}, "engine": {"kind": "scripted", "function": f"{here}:respond", "max_rows": 1024},
                "train": {"kind": "scripted", "function": f"{here}:train"}, "evaluate": {"validation": 0},
            }
        )  # fmt: skip
        with open_run(config, queries, reporter=Reporter("quiet")) as ctx:
            ctx.folder.set_model(0, ctx.base)
            ctx.folder.mark(0, "train", skipped=True)
            seconds = phase("sample", lambda: stages.sample(ctx, 1))
            figures["rollouts_per_s"] = round(n * ATTEMPTS / seconds)
            figures["rollouts_per_cpu_s"] = round(n * ATTEMPTS / figures["sample_cpu_s"])
            phase("curate", lambda: trainset.curate_rows(ctx, 1))
            phase("metrics", lambda: write_metrics(ctx))
        phase("report", lambda: write_report([Path(folder) / "run"], Path(folder) / "report.html"))
        figures["ledger_bytes_per_rollout"] = round((Path(folder) / "run" / "ledger.sqlite").stat().st_size / (n * ATTEMPTS))
    return figures


def extrapolated(small: Mapping[str, Any], large: Mapping[str, Any]) -> dict[str, Any]:
    """What GOAL queries would take: memory by what the larger one took beyond the smaller one, time by its time per query.

    Not the report's memory: at these sizes SQLite's caches and sorters still fill, so a line through it says nothing.
    """
    rest = (GOAL - large["queries"]) / (large["queries"] - small["queries"])
    figures: dict[str, Any] = {"queries": GOAL, "extrapolated_from": [small["queries"], large["queries"]]}
    for phase in PHASES:
        peak, cpu = f"{phase}_peak_mb", f"{phase}_cpu_s"
        figures[cpu] = round(large[cpu] * GOAL / large["queries"])
        if phase != "report":
            figures[peak] = round(large[peak] + rest * max(0, large[peak] - small[peak]))
    return figures


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", type=int, nargs="+")
    parser.add_argument("--check", action="store_true", help="fail where cost grows faster than the number of queries")
    given = parser.parse_args(arguments)
    if len(given.queries) == 1 and not given.check:
        print(json.dumps(one(given.queries[0])))
        return 0
    lines = []
    for n in given.queries:
        out = subprocess.run(
            [sys.executable, "-m", "gsi.bench.scale", str(n)], stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
        ).stdout
        print(out, end="", flush=True)
        lines.append(json.loads(out))
    bad = []
    for small, large in itertools.pairwise(lines):
        growth = large["queries"] / small["queries"]
        for key in (f"{phase}_cpu_s" for phase in PHASES):
            if large[key] > SLACK * growth * max(small[key], 0.5):
                bad.append(f"{key}: {small[key]} s for {small['queries']} queries, {large[key]} s for {large['queries']}")
    if len(lines) > 1:
        goal = extrapolated(*sorted(lines, key=lambda line: line["queries"])[-2:])
        print(json.dumps(goal))
        bad += [f"{key}: {mb} MB for {GOAL} queries" for key, mb in goal.items() if key.endswith("_mb") and mb > LIMIT]
    print("\n".join(bad), end="\n" if bad else "", file=sys.stderr)
    return 1 if bad and given.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

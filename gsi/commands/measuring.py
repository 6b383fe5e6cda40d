"""`gsi study` and `gsi bench`: many runs side by side, and how fast the parts are."""

from __future__ import annotations

import argparse
import json
import os

from gsi.commands import Add
from gsi.types import GsiError


def add(command: Add) -> None:
    p = command("study", _study, "a matrix of models, tasks, seeds and arms, every cell a run; resumable")
    p.add_argument("study", help="YAML file")
    p.add_argument("--dry-run", action="store_true", help="check everything, print the core-hours, run nothing")
    p.add_argument("--jobs", type=int, default=0, metavar="N", help="processes at a time, one thread each (default: one per core)")

    p = command("bench", _bench, "the project's own benchmarks, one JSON line")
    p.add_argument("name", help="which one")


def _study(args: argparse.Namespace) -> int:
    from gsi.lab import study

    jobs = args.jobs or len(os.sched_getaffinity(0))
    if args.dry_run:
        loaded, mark = study.load_study(args.study)
        todo = study.cells(loaded, args.study)
        study.check(loaded, todo, args.study, ask_hub=False)
        if not loaded.closed:
            print(study.estimate(loaded, todo, study.Results(loaded.results), jobs))
        print(f"study {loaded.name} ({args.study}, hash {mark}){f' is closed: {loaded.closed}' if loaded.closed else ''}; nothing was run")
        return 0
    return 1 if study.run_study(args.study, jobs, lambda text: print(text, flush=True)) else 0


def _bench(args: argparse.Namespace) -> None:
    from gsi.bench import BENCHES

    if args.name not in BENCHES:
        raise GsiError(f"gsi bench: no bench {args.name!r}; there are {', '.join(BENCHES)}")
    print(json.dumps(BENCHES[args.name]()))

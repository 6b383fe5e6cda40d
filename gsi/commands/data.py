"""`gsi tasks` and `gsi audit`: the questions, and the rationales that were accepted."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsi.commands import Add
from gsi.types import GsiError


def add(command: Add) -> None:
    p = command("tasks", _tasks, "built-in tasks; what is in some data, what a run would leave out, and test questions that are trained on")
    p.add_argument("action", choices=("list", "show", "check", "overlap"))
    p.add_argument("data", nargs="*", help="a file, a built-in task or a hub id, each also with @SPLIT; overlap: TRAIN TEST")
    p.add_argument("--task", default="auto", help="how the answers of other data are checked (default: auto)")
    p.add_argument("--columns", metavar="A=B,...", help="mapping, for example question=problem,answer=gold")
    p.add_argument("--ngram", type=int, default=8, metavar="N", help="overlap: words that count as one run (default: 8)")
    p.add_argument(
        "--share", type=float, default=0.8, help="overlap: share of a question's runs that must stand in one other (default: 0.8)"
    )
    p.add_argument("--json", action="store_true", help="overlap: one JSON line each, the counts last")

    p = command("audit", _audit, "accepted rationales of a run for reading, hardest first, or judged by a model")
    p.add_argument("run", help="run folder")
    p.add_argument("--n", type=int, default=50, help="how many (default: 50)")
    p.add_argument("--iteration", type=int, metavar="N", help="default: the last one sampled")
    p.add_argument("--seed", type=int, default=0, help="which ones are drawn")
    p.add_argument("--judge", metavar="URL", help="OpenAI-compatible server that reads them and gives the share that is right")
    p.add_argument("--model", metavar="NAME", help="the judge's model")
    p.add_argument(
        "--leaks", action="store_true", help="instead: in how many trained rows the gate's leak filters find something, by kind of help"
    )
    p.add_argument("--json", action="store_true", help="one JSON line each")


def _tasks(args: argparse.Namespace) -> None:
    from gsi import data_commands as data

    wanted = {"list": 0, "overlap": 2}.get(args.action, 1)
    if len(args.data) != wanted:
        names = ("nothing", "a task, a file or a hub id", "TRAIN and TEST, each a task, a file or a hub id")[wanted]
        raise GsiError(f"gsi tasks {args.action}: expected {names}, found {len(args.data)} arguments")
    if args.action == "list":
        data.list_tasks()
    elif args.action == "show":
        data.show(args.data[0], args.task, args.columns)
    elif args.action == "check":
        data.check(args.data[0], args.task, args.columns)
    else:
        data.overlap(args.data[0], args.data[1], args.task, args.columns, args.ngram, args.share, args.json)


def _audit(args: argparse.Namespace) -> None:
    from gsi.audit import audit, leak_rates, show, show_leaks

    if args.leaks:
        print(show_leaks(Path(args.run), *leak_rates(Path(args.run), args.iteration), args.json))
        return
    items, shares = audit(Path(args.run), args.n, args.seed, args.judge, args.model, args.iteration)
    print(show(items, shares, args.json))

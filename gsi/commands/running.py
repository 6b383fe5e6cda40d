"""`gsi run`, and its stages one at a time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gsi.commands import Add
from gsi.types import GsiError

if TYPE_CHECKING:
    from gsi.config import Config


def add(command: Add) -> None:
    p = command("run", _run, "run the whole loop; the same command resumes it")
    p.add_argument("config", help="YAML file")
    p.add_argument("overrides", nargs="*", metavar="a.b=c", help="config keys to change, for example sample.k=4")
    p.add_argument("--dry-run", action="store_true", help="print the plan and its cost, run nothing")
    p.add_argument(
        "--probe", type=int, default=0, metavar="N", help="with --dry-run: sample N questions first, for intervals instead of bounds"
    )
    p.add_argument("--fork", metavar="NAME", help="a new run beside the old one, from what the changed config leaves valid")
    p.add_argument("--log", choices=("auto", "bars", "lines", "json", "quiet"), default="auto", help="how progress is shown")

    for name, text in (
        ("sample", "complete the samples of an iteration"),
        ("curate", "choose the training rows of an iteration again"),
        ("train", "train an iteration's model again"),
        ("evaluate", "evaluate an iteration's model again"),
    ):
        p = command(name, _stage, text + "; later stages become stale and `gsi run` redoes them")
        p.add_argument("run", help="run folder")
        p.add_argument("--iteration", type=int, required=True, metavar="N")
        p.set_defaults(stage=name)
        if name == "evaluate":
            p.add_argument("--harness", action="store_true", help="print and run the equivalent lm-evaluation-harness command, and compare")
            p.add_argument("--harness-tasks", metavar="A,B", help="with --harness: tasks of the harness's own instead, for example gsm8k")
            p.add_argument(
                "--print", action="store_true", dest="only_print", help="with --harness: write its task files, print, run nothing"
            )


def _run(args: argparse.Namespace) -> int:
    from gsi.config import load_config
    from gsi.loop import run
    from gsi.progress import Reporter

    config = load_config(args.config, args.overrides)
    if args.dry_run:
        from gsi.plan import print_plan

        print_plan(config, args.probe)
        return 0
    if args.probe:
        raise GsiError("--probe: only with --dry-run")
    from gsi.commands.reading import write_report
    from gsi.report.terminal import summary

    reporter = Reporter(args.log)
    result = run(config, fork=args.fork, reporter=reporter)
    if args.log == "json":
        reporter.say("done", path=str(result.path), metrics=result.metrics)
    elif args.log != "quiet":
        summary(result.path)
    write_report([result.path], result.path / "report.html")
    return 0


def _stage(args: argparse.Namespace) -> None:
    if args.stage == "evaluate" and (args.harness or args.harness_tasks or args.only_print):
        if not args.harness:
            raise GsiError("--harness-tasks, --print: only with --harness")
        from gsi import harness

        theirs = [name for name in (args.harness_tasks or "").split(",") if name]
        return harness.evaluate(Path(args.run), _config_of(args.run), args.iteration, theirs, args.only_print)
    from gsi.redo import stage

    stage(_config_of(args.run), args.stage, args.iteration)


def _config_of(run: str) -> Config:
    from gsi.config import ConfigError, load_config

    path = Path(run)
    if not (path / "run.json").exists():
        raise ConfigError(f"{path}: no run folder (it has no run.json)")
    return load_config(path / "config.yaml").model_copy(update={"output_dir": str(path)})

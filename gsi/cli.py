"""The command `gsi`. Exit codes: 0 done, 1 a bug, 2 something to fix (config, data, model), 3 nothing accepted, 130 interrupted."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gsi
from gsi.faults import explained
from gsi.interrupts import EXIT_CODE, GO_ON, interruptible
from gsi.types import GsiError, Query

if TYPE_CHECKING:
    from gsi.config import Config  # commands load it when they run: `gsi --help` and completion stay fast


def main(argv: Sequence[str] | None = None) -> int:
    _speak_utf8(argv is None)
    parser = _parser()
    if argv == [] or (argv is None and len(sys.argv) == 1):
        parser.print_help()
        return 2
    args, rest = parser.parse_known_args(argv)
    # overrides may stand behind options, which argparse alone does not allow
    if rest and (not hasattr(args, "overrides") or any(r.startswith("-") or "=" not in r for r in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides += rest
    if args.command is _grade or getattr(args, "json", False):  # JSON is UTF-8, whatever the terminal
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8")
    try:
        with interruptible(), explained(Path.cwd()):
            return args.command(args) or 0
    except GsiError as e:
        print(f"gsi: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print(f"\ngsi: interrupted; {GO_ON}", file=sys.stderr)
        return EXIT_CODE
    except BrokenPipeError:
        return 1


def _speak_utf8(own: bool) -> None:
    """Files, paths and children are UTF-8 under any locale; what a terminal cannot show is shown as an escape, never a crash.

    `own`: this process is ours alone, so it may be started again in Python's UTF-8 mode, the only way to change the encoding of paths.
    """
    if own and sys.getfilesystemencoding() != "utf-8":
        env = {"PYTHONIOENCODING": sys.stdout.encoding if sys.stdout else "ascii", **os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [os.fsencode(word) for word in (sys.executable, "-X", "utf8", "-m", "gsi", *sys.argv[1:])], env)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gsi", description="Guided self-improvement for language models.")
    parser.add_argument("--version", action="version", version=f"gsi {gsi.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    p = add("run", _run, "run the whole loop; the same command resumes it")
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
        p = add(name, _stage, text + "; later stages become stale and `gsi run` redoes them")
        p.add_argument("run", help="run folder")
        p.add_argument("--iteration", type=int, required=True, metavar="N")
        p.set_defaults(stage=name)
        if name == "evaluate":
            p.add_argument("--harness", action="store_true", help="print and run the equivalent lm-evaluation-harness command, and compare")
            p.add_argument("--harness-tasks", metavar="A,B", help="with --harness: tasks of the harness's own instead, for example gsm8k")
            p.add_argument(
                "--print", action="store_true", dest="only_print", help="with --harness: write its task files, print, run nothing"
            )

    p = add("profile", _profile, "how often a model solves each question: no training, resumable")
    p.add_argument("model", help="directory or hub id")
    p.add_argument("data", help="JSONL file, built-in task or hub id")
    p.add_argument("overrides", nargs="*", metavar="a.b=c")
    p.add_argument("--task", help="how answers are checked: a built-in task; default: the data's name if it is one, else auto")
    p.add_argument("--output", default="profile", help="folder of the results (default: profile)")

    p = add("grade", _grade, "grade JSONL {response, answer, options?, question?, task?} from standard input")
    p.add_argument("--task", default="auto", help="task of lines that name none (default: auto)")
    p.add_argument("--programs", action="store_true", help="responses are Python programs: run each isolated, grade its answer")

    p = add(
        "export", _export, "training data for TRL cut from what was sampled, or all rollouts, as JSONL or Parquet; nothing is sampled again"
    )
    p.add_argument("run", help="run folder")
    p.add_argument("output", help="file ending in .jsonl or .parquet")
    p.add_argument(
        "--to",
        choices=("sft", "dpo", "kto", "grpo", "rollouts"),
        default="sft",
        help="sft: prompt, completion; dpo: chosen, rejected; kto: label; grpo: prompts with solution and pass_rate",
    )
    p.add_argument("--iteration", type=int, metavar="N", help="default: the last one sampled; rollouts: all of them")
    p.add_argument("--cap", type=int, metavar="N", help="rows per question at most, 0 = all (default: the run's)")
    p.add_argument(
        "--distinct", action=argparse.BooleanOptionalAction, help="of equal completions of a question keep one (default: the run's)"
    )
    p.add_argument("--accept", choices=("answer", "steps"), help="what counts as right (default: the run's)")
    p.add_argument("--negatives", default="wrong", metavar="A,B", help="dpo, kto: statuses of rejected rows (default: wrong)")
    p.add_argument("--ids", action="store_true", help="sft: the exact token ids and mask instead of texts, as TRL's SFTTrainer takes them")
    p.add_argument("--seed", type=int, help="which rows a cap keeps and how pairs meet (default: the run's)")

    p = add("import", _import, "samples that others have drawn, graded into a run folder: the paper's results, TRL sets, plain JSONL")
    p.add_argument("samples", help="file: .json, .jsonl, .csv, .parquet")
    p.add_argument("run", help="run folder to make")
    p.add_argument("--task", help="how answers are checked (default: by the ids of the paper's items, else auto)")
    p.add_argument("--questions", metavar="DATA", help="a file, built-in task or hub id with the answers, where the samples have none")
    p.add_argument("--columns", metavar="A=B,...", help="mapping, for example question=problem,response=model_output")
    p.add_argument("--model", help="directory or hub id of the model that drew them; then `gsi run RUN/config.yaml` goes on from them")
    p.add_argument("--strategy", default="vanilla", help="what they were drawn with (default: vanilla)")
    p.add_argument(
        "--plain", type=int, default=0, metavar="K", help="attempts per question before the guided ones (default: all are plain)"
    )
    p.add_argument("--programs", action="store_true", help="responses are Python programs: run each isolated")

    p = add("report", _report, "a self-contained HTML report from the run folders alone")
    p.add_argument("runs", nargs="+", metavar="RUN")
    p.add_argument("--output", help="file (default: RUN/report.html of the first run)")
    p.add_argument("--figures", metavar="DIR", help="also write every plot into this folder, as SVG, PNG and CSV")

    p = add("view", _view, "a local web page over runs, which follows a live one; reads only")
    p.add_argument("folder", help="run folder, or one that holds runs")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    p.add_argument("--port", type=int, default=8765, help="0 = any that is free (default: 8765)")

    p = add("compare", _compare, "runs side by side, with intervals")
    p.add_argument("runs", nargs="+", metavar="RUN")
    p.add_argument("--controls", action="store_true", help="first run the control arms of the first run, in RUN-controls/, and add them")

    p = add("status", _status, "where a run is")
    p.add_argument("run", help="run folder")

    p = add("tasks", _tasks, "built-in tasks; what is in some data, what a run would leave out, and test questions that are trained on")
    p.add_argument("action", choices=("list", "show", "check", "overlap"))
    p.add_argument("data", nargs="*", help="a file, a built-in task or a hub id, each also with @SPLIT; overlap: TRAIN TEST")
    p.add_argument("--task", default="auto", help="how the answers of other data are checked (default: auto)")
    p.add_argument("--columns", metavar="A=B,...", help="mapping, for example question=problem,answer=gold")
    p.add_argument("--ngram", type=int, default=8, metavar="N", help="overlap: words that count as one run (default: 8)")
    p.add_argument(
        "--share", type=float, default=0.8, help="overlap: share of a question's runs that must stand in one other (default: 0.8)"
    )
    p.add_argument("--json", action="store_true", help="overlap: one JSON line each, the counts last")

    p = add("audit", _audit, "accepted rationales of a run for reading, hardest first, or judged by a model")
    p.add_argument("run", help="run folder")
    p.add_argument("--n", type=int, default=50, help="how many (default: 50)")
    p.add_argument("--iteration", type=int, metavar="N", help="default: the last one sampled")
    p.add_argument("--seed", type=int, default=0, help="which ones are drawn")
    p.add_argument("--judge", metavar="URL", help="OpenAI-compatible server that reads them and gives the share that is right")
    p.add_argument("--model", metavar="NAME", help="the judge's model")
    p.add_argument("--json", action="store_true", help="one JSON line each")

    p = add("study", _study, "a matrix of models, tasks, seeds and arms, every cell a run; resumable")
    p.add_argument("study", help="YAML file")
    p.add_argument("--dry-run", action="store_true", help="check everything, print the core-hours, run nothing")
    p.add_argument("--jobs", type=int, default=0, metavar="N", help="processes at a time, one thread each (default: one per core)")

    p = add("bench", _bench, "the project's own benchmarks, one JSON line")
    p.add_argument("name", help="which one")

    p = add("merge", _merge, "weights between two models: (1 - weight) x A + weight x B")
    p.add_argument("a", metavar="A", help="directory or hub id; its config and tokenizer are kept")
    p.add_argument("b", metavar="B", help="directory or hub id of the same architecture")
    p.add_argument("--weight", type=float, default=0.5, help="of B, 0 to 1 (default: 0.5)")
    p.add_argument("--output", required=True, metavar="DIR", help="a directory that does not exist yet")

    p = add("push", _push, "a model, its training set and the ledger with cards, to the Hugging Face hub or into a folder")
    p.add_argument("run", help="run folder")
    p.add_argument("--repo", metavar="NAME", help="on the hub: NAME, NAME-train and NAME-ledger (default: the run folder's name)")
    p.add_argument("--to", metavar="DIR", help="write the files that would be uploaded, and upload nothing")
    p.add_argument("--iteration", type=int, metavar="N", help="default: the last model that is kept")
    p.add_argument("--public", action="store_true", help="repositories that anyone can read (default: private)")

    add("schema", _schema, "JSON schema of the config, for editors")
    p = add("completion", _completion, 'what a shell needs to complete gsi\'s commands and options: eval "$(gsi completion bash)"')
    p.add_argument("shell", choices=("bash", "zsh"))

    p = add("doctor", _doctor, "check every file of a run, and repair what can be repaired; what is damaged is kept beside it")
    p.add_argument("run", help="run folder")
    p.add_argument("--check", action="store_true", help="say what is wrong, change nothing")

    add("env", _env, "versions and hardware, for bug reports")
    return parser


# --------------------------------------------------------------------------------------- commands


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
    from gsi.report.terminal import summary

    reporter = Reporter(args.log)
    result = run(config, fork=args.fork, reporter=reporter)
    if args.log == "json":
        reporter.say("done", path=str(result.path), metrics=result.metrics)
    elif args.log != "quiet":
        summary(result.path)
    _write_report([result.path], result.path / "report.html")
    return 0


def _stage(args: argparse.Namespace) -> None:
    if args.stage == "evaluate" and (args.harness or args.harness_tasks or args.only_print):
        if not args.harness:
            raise GsiError("--harness-tasks, --print: only with --harness")
        from gsi import harness

        theirs = [name for name in (args.harness_tasks or "").split(",") if name]
        return harness.evaluate(Path(args.run), _config_of(args.run), args.iteration, theirs, args.only_print)
    from gsi.loop import stage

    stage(_config_of(args.run), args.stage, args.iteration)


def _config_of(run: str) -> Config:
    from gsi.config import ConfigError, load_config

    path = Path(run)
    if not (path / "run.json").exists():
        raise ConfigError(f"{path}: no run folder (it has no run.json)")
    return load_config(path / "config.yaml").model_copy(update={"output_dir": str(path)})


def _profile(args: argparse.Namespace) -> None:
    from gsi.profiling import profile

    profile(args.model, args.data, args.output, args.task, args.overrides)


def _grade(args: argparse.Namespace) -> None:
    """Order is kept; grading runs ahead of the output by a bounded number of lines."""
    from collections import deque

    from gsi.verify import CHECKERS, make_grader, with_programs

    grader = with_programs(
        make_grader(dict.fromkeys(CHECKERS), workers=2, timeout=5.0, steps=False), CHECKERS if args.programs else (), workers=2
    )
    waiting: deque[Any] = deque()

    def flush(down_to: int) -> None:
        while len(waiting) > down_to:
            row, future = waiting.popleft()
            verdict = future.result()
            row |= {"correct": verdict.correct, "status": verdict.status, "extracted": verdict.extracted}
            if args.programs:
                row["detail"] = verdict.detail  # ok, or how the program failed
            print(json.dumps(row, ensure_ascii=False))

    try:
        for number, line in enumerate(sys.stdin, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                task, response, answer = row.get("task") or args.task, row["response"], row["answer"]
                answer = str(answer) if isinstance(answer, int | float) else answer  # `"answer": 42`
                if not isinstance(response, str) or not isinstance(answer, str):
                    raise TypeError("`response` and `answer` must be text")
                options = tuple(map(str, row["options"])) if row.get("options") else None
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                flush(0)
                what = f"field {e} is missing" if isinstance(e, KeyError) else str(e)
                raise GsiError(
                    f"standard input, line {number}: {what}; expected JSON with response, answer and optionally options, question, task"
                ) from None
            if task not in CHECKERS:
                flush(0)
                raise GsiError(f"standard input, line {number}: unknown task {task!r}; there are {', '.join(CHECKERS)}")
            query = Query(f"line-{number}", task, row.get("question") or "", answer, options=options)
            waiting.append((row, grader.submit(query, response)))
            flush(256)
        flush(0)
    except UnicodeDecodeError as e:
        raise GsiError(
            f"standard input: byte {e.start} of what was read is not valid UTF-8; convert it, for example with iconv -t UTF-8"
        ) from None
    finally:
        grader.close()


def _export(args: argparse.Namespace) -> None:
    from gsi.export import export

    changes = {name: getattr(args, name) for name in ("iteration", "cap", "distinct", "accept", "seed")}
    rows = export(Path(args.run), Path(args.output), args.to, negatives=args.negatives.split(","), ids=args.ids, **changes)
    print(f"{rows} rows written to {args.output}")


def _import(args: argparse.Namespace) -> None:
    from gsi.importing import import_samples, show

    output = Path(args.run)
    options = {name: getattr(args, name) for name in ("task", "questions", "columns", "model", "strategy", "plain", "programs")}
    print(show(import_samples(args.samples, output, **options), output))


def _write_report(runs: list[Path], output: Path, figures: str | None = None) -> None:
    from gsi.report.html import write_report

    print(f"report: {write_report(runs, output, Path(figures) if figures else None)}", file=sys.stderr)


def _report(args: argparse.Namespace) -> None:
    runs = [Path(r) for r in args.runs]
    _write_report(runs, Path(args.output) if args.output else runs[0] / "report.html", args.figures)


def _view(args: argparse.Namespace) -> None:
    from gsi.report.view import serve

    serve(Path(args.folder), args.host, args.port, said=lambda text: print(text, file=sys.stderr, flush=True))


def _compare(args: argparse.Namespace) -> None:
    from gsi.report.terminal import compare

    runs = [Path(r) for r in args.runs]
    if args.controls:
        from gsi.lab.control_runs import run_controls

        runs += run_controls(runs[0], lambda text: print(text, flush=True))
    compare(runs)


def _status(args: argparse.Namespace) -> None:
    from gsi.report.terminal import status

    status(Path(args.run))


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
    from gsi.audit import audit, show

    items, shares = audit(Path(args.run), args.n, args.seed, args.judge, args.model, args.iteration)
    print(show(items, shares, args.json))


def _doctor(args: argparse.Namespace) -> int:
    from gsi.doctor import examine

    problems, left = examine(Path(args.run), repair=not args.check, say=print)
    print("all files are whole" if not problems else f"{problems} problems found" + ("" if args.check else f", {left} left"))
    return 2 if left else 0


def _bench(args: argparse.Namespace) -> None:
    from gsi.bench import BENCHES

    if args.name not in BENCHES:
        raise GsiError(f"gsi bench: no bench {args.name!r}; there are {', '.join(BENCHES)}")
    print(json.dumps(BENCHES[args.name]()))


def _merge(args: argparse.Namespace) -> None:
    from gsi.train.merge import merge

    print(f"{merge(args.a, args.b, args.weight, args.output)} tensors merged into {args.output}")


def _push(args: argparse.Namespace) -> None:
    import tempfile

    from gsi.push import upload, write

    if args.to:
        for folder in write(Path(args.run), Path(args.to), args.iteration).values():
            print(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folders = write(Path(args.run), Path(scratch) / "push", args.iteration)
        for address in upload(folders, args.repo or Path(args.run).resolve().name, private=not args.public):
            print(address)


def _schema(args: argparse.Namespace) -> None:
    from gsi.schema import schema

    print(json.dumps(schema(), indent=1))


def _completion(args: argparse.Namespace) -> None:
    from gsi.completion import script

    print(script(_parser(), args.shell))


def _env(args: argparse.Namespace) -> None:
    from gsi.environment import lines

    for name, value in lines():
        print(f"{name}: {value}")


def _study(args: argparse.Namespace) -> int:
    from gsi.lab import study

    jobs = args.jobs or len(os.sched_getaffinity(0))
    if args.dry_run:
        loaded, mark = study.load_study(args.study)
        todo = study.cells(loaded, args.study)
        study.check(loaded, todo, args.study)
        print(study.estimate(loaded, todo, study.Results(loaded.results), jobs))
        print(f"study {loaded.name} ({args.study}, hash {mark}); nothing was run")
        return 0
    return 1 if study.run_study(args.study, jobs, lambda text: print(text, flush=True)) else 0


if __name__ == "__main__":
    sys.exit(main())

"""`gsi export` and `gsi import`: rows for others, and rows of others."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsi.commands import Add


def add(command: Add) -> None:
    p = command(
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
        "--distinct",
        action=argparse.BooleanOptionalAction,
        help="of a question's completions that are the same by the run's measure (by text where it has none) keep one (default: as the run)",
    )
    p.add_argument("--accept", choices=("answer", "steps"), help="what counts as right (default: the run's)")
    p.add_argument("--negatives", default="wrong", metavar="A,B", help="dpo, kto: statuses of rejected rows (default: wrong)")
    p.add_argument("--ids", action="store_true", help="sft: the exact token ids and mask instead of texts, as TRL's SFTTrainer takes them")
    p.add_argument("--seed", type=int, help="which rows a cap keeps and how pairs meet (default: the run's)")

    p = command("import", _import, "samples that others have drawn, graded into a run folder: the paper's results, TRL sets, plain JSONL")
    p.add_argument("samples", help="file: .json, .jsonl, .csv, .parquet")
    p.add_argument("run", help="run folder to make")
    p.add_argument("--task", help="how answers are checked (default: by the ids of the paper's items, else auto)")
    p.add_argument("--questions", metavar="DATA", help="a file, built-in task or hub id with the answers, where the samples have none")
    p.add_argument("--columns", metavar="A=B,...", help="mapping, for example question=problem,response=model_output")
    p.add_argument(
        "--model", help="directory, hub id or lab name of the model that drew them; then `gsi run RUN/config.yaml` goes on from them"
    )
    p.add_argument("--strategy", default="vanilla", help="what they were drawn with (default: vanilla)")
    p.add_argument(
        "--plain", type=int, default=0, metavar="K", help="attempts per question before the guided ones (default: all are plain)"
    )
    p.add_argument("--programs", action="store_true", help="responses are Python programs: run each isolated")


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

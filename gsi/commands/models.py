"""`gsi merge` and `gsi push`: what becomes of models."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsi.commands import Add


def add(command: Add) -> None:
    p = command("merge", _merge, "weights between two models: (1 - weight) x A + weight x B")
    p.add_argument("a", metavar="A", help="directory or hub id; its config and tokenizer are kept")
    p.add_argument("b", metavar="B", help="directory or hub id of the same architecture")
    p.add_argument("--weight", type=float, default=0.5, help="of B, 0 to 1 (default: 0.5)")
    p.add_argument("--output", required=True, metavar="DIR", help="a directory that does not exist yet")

    p = command("push", _push, "a model, its training set and the ledger with cards, to the Hugging Face hub or into a folder")
    p.add_argument("run", help="run folder")
    p.add_argument("--repo", metavar="NAME", help="on the hub: NAME, NAME-train and NAME-ledger (default: the run folder's name)")
    p.add_argument("--to", metavar="DIR", help="write the files that would be uploaded, and upload nothing")
    p.add_argument(
        "--iteration", type=int, metavar="N", help="default: the last one; of one that was rolled back, the model it went back to"
    )
    p.add_argument("--public", action="store_true", help="repositories that anyone can read (default: private)")


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

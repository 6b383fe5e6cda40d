"""`python -m gsi.lab.reading lab:dag-taught:2`: does a base that was taught to read hints read them, and on which levels?

Greedy accuracy, every step right, on fresh questions of every level: plain, and behind each hint of the task (the right answer, the reference, a wrong attempt with a
teacher's remark, a cue), made from the question alone; in brackets how many of those that plainly fail are right with the hint. A study of
hints on a base that cannot read them shows nothing about hints. Half a minute on one core, once the base is built.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from gsi.lab import dag, dag_check, greedy, multiply, multiply_check
from gsi.lab.base import parse, resolve
from gsi.lab.command import end
from gsi.types import GsiError

FRESH = 9_000_000  # the seed of questions that nothing trains on, less the base's
TASKS: dict[str, Any] = {"dag": (dag, dag_check), "multiply": (multiply, multiply_check)}


def reading(model: Any, tokenizer: Any, task: str, seed: int, per_level: int) -> dict[int, dict[str, list[bool]]]:
    """By level: which of its questions come out right, plain and with each hint."""
    made, checked = TASKS[task]
    found = {}
    for level in range(1, 9):
        queries = made.queries(FRESH + seed, per_level, [level])
        prompts = {"plain": [query.question for query in queries]}
        for kind in made.HINTS:
            prompts[kind] = [made.hinted(checked.parse(query), kind, random.Random(f"{query.id}/{kind}")) for query in queries]
        found[level] = {kind: greedy.verdicts(model, tokenizer, queries, checked.check, 128, shown) for kind, shown in prompts.items()}
    return found


def main() -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("`: ")[1].splitlines()[0])
    parser.add_argument("model", help="a taught lab model, for example lab:dag-taught:2")
    parser.add_argument("--per-level", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task, _, variant, seed = parse(args.model)
    if variant != "taught":
        raise GsiError(f"{args.model} was not taught to read hints; name one such as lab:dag-taught:2")
    folder = resolve(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
    for level, found in reading(model, AutoTokenizer.from_pretrained(folder), task, seed, args.per_level).items():
        plain = found["plain"]
        parts = []
        for kind, right in found.items():
            rescued = sum(r for r, p in zip(right, plain, strict=True) if not p)
            parts.append(
                f"{kind} {sum(right) / len(right):.0%}" + ("" if kind == "plain" else f" ({rescued} of {len(plain) - sum(plain)})")
            )
        print(f"level {level}: " + ", ".join(parts), flush=True)
    return 0


if __name__ == "__main__":
    end(main)

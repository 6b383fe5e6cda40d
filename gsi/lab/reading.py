"""`python -m gsi.lab.reading lab:dag-taught:2`: what a base solves, and behind which hints it solves more.

Greedy accuracy, every step right, on fresh questions of every level. A taught base is asked plainly and behind each hint of the task (the right answer, the
reference, a wrong attempt with a teacher's remark, a cue), made from the question alone; in brackets how many of those that plainly fail are right with the hint:
a study of hints on a base that cannot read them shows nothing about hints. Any other base is asked plainly. Half a minute on one core, once the base is built.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from gsi.lab import dag, dag_check, greedy, gsm_base, multiply, multiply_check
from gsi.lab.base import parse, resolve
from gsi.lab.command import end
from gsi.prompts import Renderer
from gsi.tasks import TASKS
from gsi.types import GsiError, Query, Verdict
from gsi.verify import make_grader

FRESH = 9_000_000  # the seed of questions that nothing trains on, less the base's
PROMPTS = {"gsm_symbolic": gsm_base.PROMPT}  # of bases that are not asked with the question alone
HINTED: dict[str, Any] = {"dag": (dag, dag_check), "multiply": (multiply, multiply_check)}


def reading(model: Any, tokenizer: Any, task: str, seed: int, per_level: int, taught: bool) -> dict[int, dict[str, list[bool]]]:
    """By level: which of its questions come out right, plain and, by a base that was taught to read them, with each hint."""
    spec = TASKS[task]
    if spec.generated is None:
        raise GsiError(f"{task} is no task of the lab")
    found = {}
    render = Renderer(tokenizer, "chat" if tokenizer.chat_template else PROMPTS.get(task, "{question}"))
    grader = make_grader({task: None})

    def check(text: str, query: Query) -> Verdict:
        return grader.submit(query, text).result()

    try:
        for level in range(1, max(spec.hard_levels) + 1):
            queries = spec.generated(FRESH + seed, per_level, [level])
            asked = {"plain": [query.question for query in queries]}
            if taught:
                made, checked = HINTED[task]
                for kind in made.HINTS:
                    asked[kind] = [made.hinted(checked.parse(query), kind, random.Random(f"{query.id}/{kind}")) for query in queries]
            prompts = {kind: [render.prompt(q, text).text for q, text in zip(queries, texts, strict=True)] for kind, texts in asked.items()}
            found[level] = {kind: greedy.verdicts(model, tokenizer, queries, check, 160, texts) for kind, texts in prompts.items()}
    finally:
        grader.close()
    return found


def main() -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("`: ")[1].splitlines()[0])
    parser.add_argument("model", help="a lab model, for example lab:dag-taught:2")
    parser.add_argument("--per-level", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task, _, variant, seed = parse(args.model)
    if task == "untrained":
        raise GsiError(f"{args.model} knows no task; name one such as lab:dag or lab:dag-taught:2")
    folder = resolve(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
    for level, found in reading(model, AutoTokenizer.from_pretrained(folder), task, seed, args.per_level, variant == "taught").items():
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

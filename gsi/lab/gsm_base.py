"""The tiny base of `gsm_symbolic`: 0.5M parameters, trained from scratch to solve word problems in its own words (`gsi.lab.gsm_words`).

Reading a question and calculating digit by digit take longer to learn than the five minutes that a base may take. So there is a trunk, which
`python -m gsi.lab.gsm_base` trained in under an hour on one core and which comes with the package (1 MB, half precision); `lab:gsm_symbolic:SEED`
trains it for some minutes more, on problems and in an order that are the seed's own. Bases of different seeds share the trunk, so they differ less than
those of `dag` do. Both stages see few problems of five lines or more, so there is a tail.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gsi.lab import gsm_symbolic, gsm_words
from gsi.lab.base import SPECIAL, Progress, Recipe, must_be_new, new_model, one_thread, padded, save, train
from gsi.lab.command import end

TRUNK = Path(__file__).parent / "gsm_trunk"
TRUNK_SEED = 0
PROMPT = "{question}\n"  # the template it is asked with
KEPT = {5: 0.25, 6: 0.1, 7: 0.05}  # share of the problems of a level that are trained on; all of the others
DRILL = 0.25  # share of the batches that are calculations alone
DRILL_LINES = 8
VOCABULARY = 2048  # byte-level pieces; a digit is one
VOCABULARY_TEXTS = 8000
STEPS, DRILLED = 36_000, 4_000  # of the trunk; the first ones are drills only
RECIPE = Recipe(
    "gsm_symbolic", examples=144_000, level_rate=0, max_level=gsm_symbolic.MAX_LEVEL, layers=3, width=96, heads=3, mlp_width=256, max_positions=512, init=0.05, batch=8,
    bucket=16, lr=3e-3, warmup=100,
)  # fmt: skip
BASE_STEPS, BASE_LR = 3_000, 1.5e-3  # of a seed's base, from the trunk

Problem = tuple[str, str, str]  # question, solution in own words, worked solution


def problems(seed: int, count: int) -> list[Problem]:
    """`count` problems that the base may see, in a fixed order: drawn apart from the task's queries, whatever their seed."""
    rng = random.Random(f"gsm_base/{seed}")
    found: list[Problem] = []
    block = 0
    while len(found) < count:
        for level, question, answer, solution in gsm_symbolic.drawn(f"gsm_base/{seed}/{block}"):
            words = gsm_words.own_words(question, solution, answer, rng)
            if words is not None and rng.random() < KEPT.get(level, 1):
                found.append((question, words, solution))
        block += 1
    return found[:count]


def new_tokenizer(texts: Sequence[str]) -> Any:
    """Byte-level pieces of words; every digit is a piece, with or without the space before it."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    pad, eos, _ = SPECIAL
    raw = Tokenizer(BPE())
    pieces = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\d| ?[^\s\p{L}\d]+|\s+"), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts, BpeTrainer(vocab_size=VOCABULARY, special_tokens=[pad, eos], initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=pad, eos_token=eos, model_max_length=RECIPE.max_positions, clean_up_tokenization_spaces=False
    )


def batches(tokenizer: Any, found: Sequence[Problem], steps: int, drilled: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`steps` batches of (input ids, labels), each batch x longest sequence, label -100 = not trained: the first `drilled` are calculations
    only, then `DRILL` of them. The problems come again from the start where they do not suffice, in another order."""
    rng = random.Random(f"gsm_base/batches/{seed}")
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    left: list[Problem] = []
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    while len(done) < steps:
        drills = RECIPE.bucket if len(done) < drilled else round(DRILL * RECIPE.bucket)
        texts = []
        for _ in range(drills * RECIPE.batch):
            lines = (rng.choice(rng.choice(found)[1].splitlines()[:-1]) for _ in range(DRILL_LINES))
            texts.append(("", "\n".join(lines)))
        for _ in range((RECIPE.bucket - drills) * RECIPE.batch):
            if not left:
                left = rng.sample(found, len(found))
            question, words, _ = left.pop()
            texts.append((PROMPT.format(question=question), words))
        heads, tails = (tokenizer(list(part))["input_ids"] for part in zip(*texts, strict=True))
        rows = [(head + tail + [eos], len(head)) for head, tail in zip(heads, tails, strict=True)]
        cut = drills * RECIPE.batch  # drills and problems apart: alike in length
        rows = sorted(rows[:cut], key=lambda row: len(row[0])) + sorted(rows[cut:], key=lambda row: len(row[0]))
        group = [rows[i : i + RECIPE.batch] for i in range(0, len(rows), RECIPE.batch)]
        rng.shuffle(group)
        done += [padded(batch, pad) for batch in group]
    return done[:steps]


def fingerprint() -> str:
    """Of the trunk, of the recipe and of the code that makes a base of it."""
    mark = hashlib.sha256(json.dumps([asdict(RECIPE), KEPT, DRILL, DRILL_LINES, BASE_STEPS, BASE_LR]).encode())
    for code in (gsm_words, problems, batches, padded, build, train, gsm_symbolic.drawn):
        mark.update(inspect.getsource(code).encode())
    for name in ("model.safetensors", "tokenizer.json"):
        mark.update((TRUNK / name).read_bytes())
    return mark.hexdigest()[:12]


def build(path: Path, seed: int, progress: Progress | None = None) -> None:
    """Trains the base of `seed` from the trunk into the new folder `path`: four minutes on one thread, and a minute to draw the problems.

    Raises GsiError where `path` exists or reasoning-gym is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    must_be_new(path)
    tokenizer: Any = AutoTokenizer.from_pretrained(TRUNK)
    model: Any = AutoModelForCausalLM.from_pretrained(TRUNK, dtype=torch.float32, use_safetensors=True)
    found = problems(seed + 1, round(BASE_STEPS * RECIPE.batch * (1 - DRILL)))
    with one_thread():
        train(model, batches(tokenizer, found, BASE_STEPS, 0, seed), replace(RECIPE, lr=BASE_LR), progress)
    save(path, model, tokenizer, asdict(RECIPE) | {"seed": seed, "examples": len(found), "steps": BASE_STEPS, "lr": BASE_LR})


def build_trunk(path: Path, steps: int = STEPS, progress: Progress | None = None) -> None:
    """Trains the trunk into the new folder `path`. Raises GsiError where it exists or reasoning-gym is missing."""
    must_be_new(path)
    found = problems(TRUNK_SEED, max(VOCABULARY_TEXTS, RECIPE.examples * steps // STEPS))
    tokenizer = new_tokenizer([f"{question}\n{words}\n{solution}" for question, words, solution in found[:VOCABULARY_TEXTS]])
    model = new_model(RECIPE, TRUNK_SEED, len(tokenizer))
    with one_thread():
        train(model, batches(tokenizer, found, steps, steps * DRILLED // STEPS, TRUNK_SEED), RECIPE, progress)
    save(path, model.half(), tokenizer, asdict(RECIPE) | {"seed": TRUNK_SEED, "examples": len(found), "steps": steps})


def main() -> int:
    import time

    parser = argparse.ArgumentParser(prog="python -m gsi.lab.gsm_base", description="trains the trunk of gsm_symbolic's base anew")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    started = time.monotonic()

    def say(done: int, steps: int) -> None:
        if done % 500 == 0 or done == steps:
            print(f"{done}/{steps} steps, {(time.monotonic() - started) / 60:.0f} min", flush=True)

    build_trunk(given.folder, given.steps, say)
    return 0


if __name__ == "__main__":
    end(main)

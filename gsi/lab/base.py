"""The tiny base models of the lab: causal transformers trained from scratch in about a minute on one CPU thread.

`resolve("lab:chain")` gives the folder of the base model for `gsi.lab.chain`, built on first use and kept in the cache
(`$GSI_CACHE`, else `~/.cache/gsi`). `lab:chain:7` is the same recipe from seed 7: a study takes a fresh base per seed.
The base is made weak on purpose: its training data has few hard questions, so there is a tail to win or to lose.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from gsi.lab import chain, untrained
from gsi.types import GsiError

Progress = Callable[[int, int], None]  # (optimizer steps done, steps in all)
KINDS = ("chain", "untrained")
SPECIAL = ("<pad>", "<eos>", "<unk>")  # ids 0, 1, 2; the task's vocabulary follows


@dataclass(frozen=True)
class Recipe:
    """How the base is made. The defaults give 102k parameters, greedy accuracy about 1 up to level 4 and little or nothing from level 7;
    where it falls between depends on the seed.

    Whether one pass is enough to learn the number facts hangs on `init`: from 0.02, the library's default, some seeds stay near chance
    at every level.
    """

    examples: int = 40_000  # one pass
    level_rate: float = 0.6  # level = min(max_level, 1 + floor(Exp(level_rate))): 45 % have level 1, 2.7 % level 7 or more
    max_level: int = 10
    layers: int = 2
    width: int = 64
    heads: int = 4
    mlp_width: int = 170
    max_positions: int = 256  # tokens
    init: float = 0.1  # standard deviation of the initial weights
    batch: int = 16  # sequences
    bucket: int = 8  # batches cut from the same sorted stretch of examples: alike in length, half the padding, half the time
    lr: float = 2e-3
    warmup: int = 50  # steps; then linear decay to 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient


def _tokenizer(recipe: Recipe) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    pad, eos, unk = SPECIAL
    words = {token: i for i, token in enumerate([*SPECIAL, *chain.VOCABULARY])}
    raw = Tokenizer(WordLevel(words, unk_token=unk))
    raw.pre_tokenizer = WhitespaceSplit()  # without a decoder, tokens are joined with single spaces
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=pad,
        eos_token=eos,
        unk_token=unk,
        model_max_length=recipe.max_positions,
        clean_up_tokenization_spaces=False,
    )


def _model(recipe: Recipe, seed: int, vocab: int) -> Any:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.max_positions,
        tie_word_embeddings=True,
        initializer_range=recipe.init,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    return model


def _batches(recipe: Recipe, seed: int, tokenizer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All training batches in order: (input ids, labels), each batch x longest sequence; label -100 = not trained."""
    rng = random.Random(f"base/{seed}")
    ids = tokenizer.get_vocab()
    pad, eos, _ = (ids[token] for token in SPECIAL)
    rows: list[tuple[list[int], int]] = []  # (token ids, of which the question)
    for _ in range(recipe.examples):
        level = min(recipe.max_level, 1 + math.floor(rng.expovariate(recipe.level_rate)))
        question, rationale, _answer = chain.draw(rng, level)
        head, tail = question.split(), rationale.split()
        rows.append(([*(ids[token] for token in head + tail), eos], len(head)))
    batches, pool = [], recipe.batch * recipe.bucket
    for begin in range(0, len(rows), pool):
        part = sorted(rows[begin : begin + pool], key=lambda row: len(row[0]))
        group = [part[i : i + recipe.batch] for i in range(0, len(part), recipe.batch)]
        rng.shuffle(group)
        for batch in group:
            longest = max(len(tokens) for tokens, _ in batch)
            inputs = [tokens + [pad] * (longest - len(tokens)) for tokens, _ in batch]
            labels = [[-100] * n + tokens[n:] + [-100] * (longest - len(tokens)) for tokens, n in batch]
            batches.append((torch.tensor(inputs), torch.tensor(labels)))
    return batches


def _train(model: Any, batches: list[tuple[torch.Tensor, torch.Tensor]], recipe: Recipe, progress: Progress | None) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    steps = len(batches)
    model.train()
    for step, (inputs, labels) in enumerate(batches):
        rate = recipe.lr * min((step + 1) / recipe.warmup, (steps - step) / max(1, steps - recipe.warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # padding is on the right, where causal attention never looks back at it: no mask is needed
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
        trained = labels[:, 1:] != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[trained]), labels[:, 1:][trained])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if progress is not None and ((step + 1) % 50 == 0 or step + 1 == steps):
            progress(step + 1, steps)
    model.eval()


def build(path: Path, seed: int, progress: Progress | None = None, recipe: Recipe = Recipe()) -> None:
    """Trains the base model of `seed` into the new folder `path`, with its tokenizer; the same seed gives the same weights.

    About a minute on one thread with the default recipe, and it uses one thread, whatever torch is set to. The folder appears
    only when it is complete. Raises GsiError where `path` exists.
    """
    if path.exists():
        raise GsiError(f"{path} exists already; remove it to build the base model again")
    from transformers.utils.logging import disable_progress_bar

    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(recipe)
    model = _model(recipe, seed, len(tokenizer))
    with _one_thread():
        _train(model, _batches(recipe, seed, tokenizer), recipe, progress)
    disable_progress_bar()  # of a save that takes milliseconds
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps({"seed": seed, **asdict(recipe)}, indent=1) + "\n")
        folder.rename(path)


def resolve(name: str, progress: Progress | None = None) -> Path:
    """The folder of the lab model `lab:chain` or `lab:untrained` (seed 1; `lab:chain:SEED` for another), built first where the cache has none.

    A second process that asks meanwhile waits for the first. The folder's name holds a hash of the recipe and of the code that
    follows it, so a cached model never belongs to an older recipe. Raises GsiError for a name that is no lab model.
    """
    kind, _, seed = name.removeprefix("lab:").partition(":")
    seed = seed or "1"
    if not name.startswith("lab:") or kind not in KINDS or not (seed.isascii() and seed.isdigit()) or name.endswith(":"):
        raise GsiError(
            f"model: {name!r} is no lab model; known: {', '.join(f'lab:{k}, lab:{k}:SEED' for k in KINDS)} (SEED a whole number)"
        )
    cache = Path(os.environ.get("GSI_CACHE") or Path.home() / ".cache" / "gsi").expanduser() / "lab"
    mark = _fingerprint(Recipe()) if kind == "chain" else hashlib.sha256(inspect.getsource(untrained).encode()).hexdigest()[:12]
    path = cache / f"{kind}-{mark}" / f"seed-{int(seed)}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                (build if kind == "chain" else untrained.build)(path, int(seed), progress)
    return path


def _fingerprint(recipe: Recipe) -> str:
    code = [inspect.getsource(f) for f in (chain.draw, chain.solve, _tokenizer, _model, _batches, _train)]
    text = json.dumps([asdict(recipe), SPECIAL, chain.VOCABULARY, code])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums come in another order with more threads, which gives other weights; and at this size more threads are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The tiny base models of the lab: causal transformers trained from scratch in a few minutes on one CPU thread.

`resolve("lab:chain")` gives the folder of the base model for `gsi.lab.chain`, built on first use and kept in the cache
(`$GSI_CACHE`, else `~/.cache/gsi`). The name is `lab:TASK[-ARCHITECTURE][-taught|-strong][:SEED]`: `lab:dag-qwen3-taught:7` is the dag task's recipe on
Qwen3 from seed 7 (initialisation and data order), taught to read hints; `strong` ones know hard questions too and serve as teachers. A study takes a fresh base per seed. A base is made weak on
purpose: its training data has few hard questions, so there is a tail to win or to lose.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from gsi.lab import chain, dag, multiply, untrained
from gsi.types import GsiError

Progress = Callable[[int, int], None]  # (optimizer steps done, steps in all)
SPECIAL = ("<pad>", "<eos>", "<unk>")  # ids 0, 1, 2; the task's vocabulary follows
CHAT = ("<user>", "<model>")  # the turns of the architecture that has a chat template
TEMPLATE = "{% for m in messages %}<user> {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}<model> {% endif %}"


@dataclass(frozen=True)
class Recipe:
    """How a base is made. The defaults are the chain task's: 102k parameters, greedy accuracy about 1 up to level 4 and little or nothing
    from level 7; where it falls between depends on the seed.

    Whether one pass is enough to learn the number facts hangs on `init`: from 0.02, the library's default, some seeds stay near chance
    at every level.
    """

    task: str = "chain"
    architecture: str = "llama"  # one of ARCHITECTURES
    taught: bool = False  # also learns to read hints
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


RECIPES = {
    "chain": Recipe(),
    "dag": Recipe("dag", examples=150_000, level_rate=0.7, max_level=8, max_positions=512, lr=3e-3, batch=32),
    "multiply": Recipe("multiply", examples=110_000, level_rate=0.6, max_level=6, max_positions=512, batch=32, lr=3e-3),
}
# An architecture that the task's recipe leaves without a tail (Qwen3 solved level 8 in up to 68 %): 0.7 % of its examples have level 6 or more, not 3 %
OF_ARCHITECTURE: dict[tuple[str, str], dict[str, Any]] = {("dag", "qwen3"): {"level_rate": 1.0}}
STRONG = {"level_rate": 0.2, "examples": 200_000}  # the teacher of `interactive`: a quarter of its examples have level 7 or more
TAUGHT = {"dag": {"examples": 220_000}}  # of a base that learns to read hints as well
TASKS: dict[str, Any] = {"chain": chain, "dag": dag, "multiply": multiply}
ALONE = ("untrained", "gsm_symbolic")  # in one form only, each made by a module of its own
ARCHITECTURES = ("llama", "mistral", "qwen3", "neox")  # qwen3 has a chat template; neox has layer norms, biases and parallel blocks


def _tokenizer(recipe: Recipe) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    pad, eos, unk = SPECIAL
    chat = recipe.architecture == "qwen3"
    words = {token: i for i, token in enumerate([*SPECIAL, *TASKS[recipe.task].VOCABULARY, *(CHAT if chat else ())])}
    raw = Tokenizer(WordLevel(words, unk_token=unk))
    raw.pre_tokenizer = WhitespaceSplit()  # without a decoder, tokens are joined with single spaces
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=pad,
        eos_token=eos,
        unk_token=unk,
        model_max_length=recipe.max_positions,
        clean_up_tokenization_spaces=False,
        **({"chat_template": TEMPLATE} if chat else {}),
    )


def new_model(recipe: Recipe, seed: int, vocab: int) -> Any:
    """The recipe's model with initial weights of `seed`; `vocab` tokens, of which the first two are padding and the end of a text."""
    import transformers as t

    common: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": recipe.max_positions,
        "tie_word_embeddings": True,
        "initializer_range": recipe.init,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    gated: dict[str, Any] = {"intermediate_size": recipe.mlp_width, "num_key_value_heads": recipe.heads}
    head = recipe.width // recipe.heads
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    config: Any = {
        "llama": lambda: t.LlamaConfig(**common, **gated),
        "mistral": lambda: t.MistralConfig(**common, **gated, head_dim=head, sliding_window=None),
        "qwen3": lambda: t.Qwen3Config(**common, **gated, head_dim=head),
        # two matrices instead of three: half as wide again for the same number of parameters
        "neox": lambda: t.GPTNeoXConfig(**common, intermediate_size=recipe.mlp_width * 3 // 2, rope_parameters=rope),
    }[recipe.architecture]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = t.AutoModelForCausalLM.from_config(config)
    model.generation_config = t.GenerationConfig(eos_token_id=1, pad_token_id=0)
    return model


def _batches(recipe: Recipe, seed: int, tokenizer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All training batches in order: (input ids, labels), each batch x longest sequence; label -100 = not trained."""
    rng = random.Random(f"base/{seed}")
    ids = tokenizer.get_vocab()
    pad, eos, _ = (ids[token] for token in SPECIAL)
    rows: list[tuple[list[int], int]] = []  # (token ids, of which the question)
    for prompt, completion in TASKS[recipe.task].documents(rng, recipe.examples, recipe.level_rate, recipe.max_level, recipe.taught):
        head, tail = prompt.split(), completion.split()
        if tokenizer.chat_template:
            head = [CHAT[0], *head, CHAT[1]]
        rows.append(([*(ids[token] for token in head + tail), eos], len(head)))
    batches, pool = [], recipe.batch * recipe.bucket
    for begin in range(0, len(rows), pool):
        part = sorted(rows[begin : begin + pool], key=lambda row: len(row[0]))
        group = [part[i : i + recipe.batch] for i in range(0, len(part), recipe.batch)]
        rng.shuffle(group)
        for batch in group:
            batches.append(padded(batch, pad))
    return batches


def padded(rows: Sequence[tuple[list[int], int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids, labels), each rows x longest sequence, of rows of (token ids, of which the question); label -100 = not trained."""
    longest = max(len(tokens) for tokens, _ in rows)
    inputs = [tokens + [pad] * (longest - len(tokens)) for tokens, _ in rows]
    labels = [[-100] * n + tokens[n:] + [-100] * (longest - len(tokens)) for tokens, n in rows]
    return torch.tensor(inputs), torch.tensor(labels)


def train(model: Any, batches: list[tuple[torch.Tensor, torch.Tensor]], recipe: Recipe, progress: Progress | None) -> None:
    """One pass over (input ids, labels), each batch x longest sequence; label -100 = not trained."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    steps = len(batches)
    model.train()
    head = model.get_output_embeddings()
    for step, (inputs, labels) in enumerate(batches):
        rate = recipe.lr * min((step + 1) / recipe.warmup, (steps - step) / max(1, steps - recipe.warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # padding is on the right, where causal attention never looks back at it: no mask is needed
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
        trained = labels[:, 1:] != -100
        loss = torch.nn.functional.cross_entropy(head(hidden[trained]), labels[:, 1:][trained])
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
    must_be_new(path)
    tokenizer = _tokenizer(recipe)
    model = new_model(recipe, seed, len(tokenizer))
    with one_thread():
        train(model, _batches(recipe, seed, tokenizer), recipe, progress)
    save(path, model, tokenizer, {"seed": seed, **asdict(recipe)})


def must_be_new(path: Path) -> None:
    """Raises GsiError where `path` exists: before a model is trained, not after it."""
    if path.exists():
        raise GsiError(f"{path} exists already; remove it to build the base model again")


def save(path: Path, model: Any, tokenizer: Any, made: dict[str, Any]) -> None:
    """Writes a normal model folder, and in `recipe.json` how it was made; it appears only when it is complete."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of a save that takes milliseconds
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        folder.rename(path)


def resolve(name: str, progress: Progress | None = None) -> Path:
    """The folder of a lab model, `lab:TASK[-ARCHITECTURE][-taught|-strong][:SEED]`, `lab:gsm_symbolic[:SEED]` or `lab:untrained[:SEED]` (seed 1 if none
    is given), built first where the cache has none.

    A second process that asks meanwhile waits for the first. The folder's name holds a hash of the recipe and of the code that
    follows it, so a cached model never belongs to an older recipe. Raises GsiError for a name that is no lab model.
    """
    kind, architecture, variant, seed = parse(name)
    if kind in ALONE:
        from gsi.lab import gsm_base  # here: it builds on this module

        made = {"untrained": untrained, "gsm_symbolic": gsm_base}[kind]
        return _cached(f"{kind}-{made.fingerprint()}", seed, lambda path, n: made.build(path, n, progress))
    variants: dict[str | None, dict[str, Any]] = {"strong": STRONG, "taught": {"taught": True, **TAUGHT.get(kind, {})}}
    changes = OF_ARCHITECTURE.get((kind, architecture or "llama"), {}) | variants.get(variant, {})
    recipe = replace(RECIPES[kind], architecture=architecture or "llama", **changes)
    label = "-".join([kind, *([architecture] if architecture else []), *([variant] if variant else []), _fingerprint(recipe)])
    return _cached(label, seed, lambda path, n: build(path, n, progress, recipe))


def parse(name: str) -> tuple[str, str | None, str | None, int]:
    """(task, architecture, `taught`, `strong` or None, seed) of a lab model's name. Raises GsiError for a name that is none."""
    shaped = re.fullmatch(r"lab:([a-z_]+)(?:-([a-z0-9]+))??(?:-(taught|strong))?(?::([0-9]+))?", name)
    kind, architecture, variant, seed = shaped.groups() if shaped else ("", None, None, None)
    plain = kind in ALONE and not architecture and not variant
    if not plain and (
        kind not in RECIPES or (architecture or "llama") not in ARCHITECTURES or (variant == "taught" and not hasattr(TASKS[kind], "HINTS"))
    ):
        raise GsiError(
            f"model: {name!r} is no lab model; known: lab:TASK[-ARCHITECTURE][-taught|-strong][:SEED] with TASK in {', '.join(RECIPES)}, ARCHITECTURE in "
            f"{', '.join(ARCHITECTURES)}, SEED a whole number, taught for {', '.join(k for k, m in TASKS.items() if hasattr(m, 'HINTS'))}; and "
            f"{' and '.join(f'lab:{kind}[:SEED]' for kind in ALONE)}"
        )
    return kind, architecture, variant, int(seed or 1)


def _cached(label: str, seed: int, make: Callable[[Path, int], None]) -> Path:
    path = Path(os.environ.get("GSI_CACHE") or Path.home() / ".cache" / "gsi").expanduser() / "lab" / label / f"seed-{seed}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path, seed)
    return path


def _fingerprint(recipe: Recipe) -> str:
    task = TASKS[recipe.task]
    code = [inspect.getsource(f) for f in (*task.RECIPE, _tokenizer, new_model, _batches, padded, train)]
    text = json.dumps([asdict(recipe), SPECIAL, CHAT, TEMPLATE, task.VOCABULARY, code])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums come in another order with more threads, which gives other weights; and at this size more threads are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

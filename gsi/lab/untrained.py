"""`lab:untrained`: a tiny model with random weights that reads any text, byte by byte. It shows the loop on real data without a download."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path


def fingerprint() -> str:
    """Of the code that makes the model."""
    return hashlib.sha256(inspect.getsource(build).encode()).hexdigest()[:12]


def build(path: Path, seed: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Writes a byte-level tokenizer and a 100k-parameter Llama that has learned nothing. Quick; deterministic per seed."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", model_max_length=2048)
    config = LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=0)
    disable_progress_bar()
    part = path.with_name(path.name + ".part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(path)

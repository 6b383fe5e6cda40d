"""Tiny random models and tokenizers, made on the spot."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHARACTERS = sorted(set("\n" + "".join(chr(i) for i in range(32, 127))))


def tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per character, `</s>` ends; no pad token."""
    vocabulary = {c: i for i, c in enumerate(["</s>", "<s>", *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", **({"bos_token": "<s>"} if bos else {}))


def build(path: Path, family: str = "llama", seed: int = 0, context: int = 128, std: float = 0.3) -> Path:
    """A random model of a family with the tokenizer above, saved as a normal folder."""
    tok = tokenizer()
    shared = {"vocab_size": len(tok), "eos_token_id": tok.eos_token_id, "bos_token_id": None, "pad_token_id": None}
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": context,
    }
    torch.manual_seed(seed)
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=context, initializer_range=std, **shared))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(
            Qwen3Config(num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, initializer_range=std, **small, **shared)
        )
    elif family == "mistral":
        model = MistralForCausalLM(MistralConfig(num_key_value_heads=2, sliding_window=16, initializer_range=std, **small, **shared))
    else:
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, initializer_range=std, **small, **shared))
    model.save_pretrained(path)
    tok.save_pretrained(path)
    return path

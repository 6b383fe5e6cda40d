"""Small tokenizers of the kinds that models have, trained on the spot, and a random model for each."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as kinds
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = [
    "Question: Ann has 12 apples and buys 30 more. How many apples does she have?\nAnswer:\n",
    "She starts with 12 apples.\nThen she buys 30, so 12 + 30 = 42.\nThe answer is 42.",
    "Wie viele Äpfel? Zwölf und dreißig: 42 – und ein Café. 日本語も少し。 \\frac{1}{2}  two  spaces",
]
CHAT = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] | trim + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def byte_level(**extra) -> PreTrainedTokenizerFast:
    """GPT-2, Qwen: no BOS, nothing added to a text."""
    core = Tokenizer(kinds.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|bos|>", "<|start|>", "<|end|>"]
    core.train_from_iterator(TEXT, BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", **extra)


def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama 2, Mistral: a space before every text, BOS first."""
    core = Tokenizer(kinds.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = UnigramTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>")
    core.train_from_iterator(TEXT, trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def chat() -> PreTrainedTokenizerFast:
    """Qwen's form: a chat template, its end-of-turn token ends a response."""
    made = byte_level(chat_template=CHAT)
    made.eos_token = "<|end|>"
    return made


def chat_with_bos() -> PreTrainedTokenizerFast:
    """Llama 3's form: the template itself writes BOS, and the tokenizer would add another."""
    made = byte_level(bos_token="<|bos|>", chat_template="{{ bos_token }}" + CHAT)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 1)])
    return made


KINDS = {"byte_level": byte_level, "sentencepiece": sentencepiece, "chat": chat, "chat_with_bos": chat_with_bos}


def build(path: Path, kind: str) -> Path:
    tokenizer = KINDS[kind]()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path

"""Prompts and completions to tokens: the same for sampling, training and evaluation, whatever the tokenizer's habits."""

import models
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from gsi.prompts import Renderer
from gsi.types import GsiError, Query

TEXT = ["Question: What is 12 + 30?\nAnswer:\n", "12 + 30 = 42\nThe answer is 42", "Tom has 3 apples. He eats one.", "x = 5; y = 6"]
QUERY = Query("q", "gsm8k", "What is 12 + 30?", "42", "12 + 30 = 42\nThe answer is 42")
CHAT = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"


def byte_level() -> PreTrainedTokenizerFast:
    core = Tokenizer(token_models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        TEXT * 4, trainers.BpeTrainer(vocab_size=330, special_tokens=["</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")


def prefix_space() -> PreTrainedTokenizerFast:
    """Like SentencePiece: a space becomes ▁, one is put before any text, BOS is added."""
    core = Tokenizer(token_models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    core.train_from_iterator(TEXT * 4, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def chat() -> PreTrainedTokenizerFast:
    tokenizer = models.tokenizer(bos=True)
    tokenizer.chat_template = CHAT
    return tokenizer


KINDS = {"byte-level": byte_level, "prefix space": prefix_space, "chat": chat, "characters": models.tokenizer}


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_completion_are_the_ids_of_the_whole(kind):
    tokenizer = KINDS[kind]()
    renderer = Renderer(tokenizer)
    prompt = renderer.prompt(QUERY)
    completion = renderer.continuation(prompt, QUERY.rationale)
    assert "12 + 30" in prompt.text
    assert renderer.decode(prompt.ids + completion.ids).endswith(QUERY.rationale)
    assert renderer.decode(completion.ids).strip() == QUERY.rationale
    assert renderer.ending(completion.ids)[-1] == tokenizer.eos_token_id
    assert renderer.ending(renderer.ending(completion.ids)) == renderer.ending(completion.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_bos_is_there_once_in_the_ids_and_never_in_the_text(kind):
    tokenizer = KINDS[kind]()
    prompt = Renderer(tokenizer).prompt(QUERY)
    assert "<s>" not in prompt.text
    expected = 1 if kind in ("prefix space", "chat") else 0
    assert sum(i == tokenizer.bos_token_id for i in prompt.ids) == expected
    assert not expected or prompt.ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_part_splits_the_ids_at_its_border(kind):
    """What the engine sees (prompt + given) and what training sees (prompt + response) begin alike."""
    renderer = Renderer(KINDS[kind]())
    prompt = renderer.prompt(QUERY)
    given = renderer.continuation(prompt, "12 + 30 = 42\n")
    assert renderer.decode(given.ids).strip() == "12 + 30 = 42"
    assert renderer.decode(prompt.ids + given.ids).endswith("12 + 30 = 42\n")


def test_a_hinted_question_changes_the_prompt_of_that_attempt_only():
    renderer = Renderer(models.tokenizer(), instruction="Think.")
    assert "SECRET" in renderer.prompt(QUERY, "What? Hint: SECRET").text
    assert "SECRET" not in renderer.prompt(QUERY).text
    assert "Think." in renderer.prompt(QUERY).text


def test_templates_of_ones_own_and_braces_in_questions():
    renderer = Renderer(None, template="Q: {question} A: ")
    assert renderer.prompt(Query("a", "t", r"What is \frac{1}{2} of {x}?", "1")).text == r"Q: What is \frac{1}{2} of {x}? A: "
    assert renderer.prompt(QUERY).ids is None


def test_bad_templates_and_tokenizers_are_refused():
    with pytest.raises(GsiError, match=r"lacks \{question\}"):
        Renderer(None, template="Answer: ")
    with pytest.raises(GsiError, match="chat template"):
        Renderer(models.tokenizer(), template="chat")
    endless = models.tokenizer()
    endless.eos_token = None
    with pytest.raises(GsiError, match="no eos token"):
        Renderer(endless)

"""From generated token ids to a completion, the same for every engine that sees ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsi.types import Completion, GsiError, Request, Text


def token_ids(text: Text, engine: str) -> tuple[int, ...]:
    """The ids of a request's part. Raises GsiError where it has text but no ids."""
    if text.ids is None and text.text:
        raise GsiError(f"engine {engine}: a request without token ids; its renderer has no tokenizer")
    return text.ids or ()


def end_ids(configured: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a response: those of a generation config (one, several or None) and the tokenizer's own."""
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, getattr(tokenizer, "eos_token_id", None)) if i is not None)


def stored_end_ids(model: str, tokenizer: Any) -> frozenset[int]:
    """`end_ids` of a model that is not loaded here: those of its generation config, where it has one, and of the tokenizer."""
    configured: Any = None
    if Path(model).is_dir():
        path = Path(model) / "generation_config.json"
        configured = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
    elif tokenizer is not None:
        from transformers import GenerationConfig

        try:
            configured = GenerationConfig.from_pretrained(model).eos_token_id
        except OSError:
            configured = None  # it has none
    return end_ids(configured, tokenizer)


def decode_after(tokenizer: Any, given: Sequence[int], ids: Sequence[int]) -> str:
    """`ids` as text. Decoded behind `given`, because some tokenizers render a first token differently."""
    decode = lambda part: tokenizer.decode(list(part), skip_special_tokens=True)  # noqa: E731
    if given:
        whole, head = decode([*given, *ids]), decode(given)
        if whole.startswith(head):
            return whole[len(head) :]
    return decode(ids)


def may_end(piece: str, stops: Sequence[str]) -> bool:
    """Whether a text that ends in a token can have come to a stop string with it; `piece` is the token decoded alone.

    It must bring the last character of one. Blanks at its edges and parts of a character may not show in it.
    """
    return "\ufffd" in piece or any(stop[-1] in piece or stop[-1].isspace() for stop in stops)


def completion(tokenizer: Any, request: Request, ids: Sequence[int], reason: str) -> Completion:
    """What was generated, cut before the first stop string: the ids keep only whole tokens before it."""
    given, kept = request.given.ids or (), tuple(ids)
    text = decode_after(tokenizer, given, kept)
    cut = min((at for stop in request.sampling.stop if (at := text.find(stop)) >= 0), default=-1)
    if cut >= 0:
        text = text[:cut]
        while kept and len(decode_after(tokenizer, given, kept)) > cut:
            kept = kept[:-1]
    return Completion(text, kept, reason, generated_tokens=len(ids))

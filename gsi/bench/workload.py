"""The made-up workload of `gsi bench sampling` and `gsi bench memory`: a random model of about 1M parameters, whose response
lengths (uniform 8-96 tokens) and verdicts (success rate per query from Beta(.5, .5)) are drawn from identity.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsi.allocation import Quota
from gsi.types import Completion, Query, Request, Rollout, Sampling, Text, Verdict

K, WANTED, EXTRA = 8, 4, 8
PROMPT, SHORTEST, LONGEST = 48, 8, 96  # tokens
VOCABULARY = 512


def length(query: int, attempt: int) -> int:
    return random.Random(f"length/{query}/{attempt}").randint(SHORTEST, LONGEST)


def right(query: int, attempt: int) -> bool:
    rate = random.Random(f"rate/{query}").betavariate(0.5, 0.5)
    return random.Random(f"right/{query}/{attempt}").random() < rate


def prompt(query: int) -> tuple[int, ...]:
    rng = random.Random(f"prompt/{query}")
    return tuple(rng.randrange(2, VOCABULARY) for _ in range(PROMPT))


class Verdicts:
    """A grader that knows: the scripted response is `yes` or `no`."""

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        future.set_result(Verdict("correct" if response == "yes" else "wrong"))
        return future

    def close(self) -> None: ...


class Lengths:
    """The sampler's workload with lengths and verdicts put in; the engine decodes real tokens."""

    def __init__(self, work: Any):
        self.work = work

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        taken = self.work.take(n, timeout)
        return taken and [replace(r, sampling=replace(r.sampling, max_new_tokens=length(int(r.query.id), r.attempt))) for r in taken]

    def put(self, request: Request, completion: Completion) -> None:
        text = "yes" if right(int(request.query.id), request.attempt) else "no"
        self.work.put(request, replace(completion, text=text, finish_reason="stop"))


def waste(rows: Sequence[Rollout]) -> float:
    """Share of generated tokens spent on attempts that a scheduler under the same rule, but drawing one by one, would not have launched."""
    allocation = Quota(K, WANTED, EXTRA)
    spent = wasted = 0
    by_query: dict[str, list[Rollout]] = {}
    for r in rows:
        by_query.setdefault(r.query_id, []).append(r)
    for query_id, attempts in by_query.items():
        query, needed = Query(query_id, "bench", "", ""), 0
        while needed < len(attempts) and allocation.plan(query, attempts[:needed]).total > needed:
            needed += 1
        spent += sum(r.generated_tokens for r in attempts)
        wasted += sum(r.generated_tokens for r in attempts[needed:])
    return wasted / spent


class Fixed:
    """A workload of a fixed list."""

    def __init__(self, requests: list[Request]):
        self.requests = requests

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        taken, self.requests = self.requests[:n], self.requests[n:]
        return taken or None

    def put(self, request: Request, completion: Completion) -> None: ...


def request(q: int, a: int, tokens: int) -> Request:
    return Request(Query(str(q), "bench", "", ""), 0, a, Text("", prompt(q)), Text("", ()), Sampling(0.7, 1.0, tokens), q * 100 + a)


class Tokenizer:
    eos_token_id = None

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return ""


class Renderer:
    """Prompts by identity instead of text."""

    def prompt(self, query: Query, question: str | None = None) -> Text:
        return Text("", prompt(int(query.id)))

    def continuation(self, prompt: Text, text: str) -> Text:
        return Text(text, ())

    def trained(self, response: str) -> str:
        return response


def build_model(folder: Path, layers: int = 4) -> Path:
    """About 1M parameters (with 4 layers) with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder / "model"

"""`gsi bench sampling`: what scheduling and early stopping give, on one model, one machine, in one run.

256 queries, k = 8 plain attempts, then extras one at a time until 4 are accepted or 8 extras are spent: the same rule for
all three ways of drawing.

    ours         the sampler and the embedded engine
    rounds       one response per query per round through model.generate, every round a barrier (the released code's pattern)
    all_at_once  generate with all k of every query, then rounds for the extras

The model is random (about 1M parameters), so lengths (uniform 8-96 tokens) and verdicts (success rate per query from
Beta(.5, .5)) are drawn from identity and the same for all three. accepted = min(correct, wanted) per query.
"""

from __future__ import annotations

import random
import tempfile
import time
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


def sampling(queries: int = 256, rows: int = 256) -> dict[str, Any]:
    """Runs all and returns the line that the command prints. `rows`: sequences decoded together, the same for all."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(Path(folder))
        from gsi.engines.transformers import TransformersEngine

        engine = TransformersEngine(str(model), Tokenizer(), max_rows=rows)
        engine.stop_ids = frozenset()  # lengths are given
        warm = [_request(q, 0, 8) for q in range(8)]
        engine.run(_List(warm))
        _generate(engine.model, [prompt(0)] * 8, [8] * 8)

        ours = _ours(engine, queries, Path(folder))
        results: dict[str, Any] = {"ours": ours}
        results["rounds"] = _rounds(engine.model, queries, rows, first=1)
        results["all_at_once"] = _rounds(engine.model, queries, rows, first=K)
        # what the same engine makes of a fixed list without any decision: scheduling apart from stopping
        everything = [_request(q, a, length(q, a)) for q in range(queries) for a in range(K)]
        before = dict(engine.stats)
        started = time.perf_counter()
        engine.run(_List(everything))
        results["decode_tokens_per_s"] = (engine.stats["decode_tokens"] - before["decode_tokens"]) / (time.perf_counter() - started)
        results["ceiling_tokens_per_s"] = _ceiling(engine.model, rows)
    results["waste"] = ours.pop("waste")
    results["speedup_over_rounds"] = ours["accepted_per_s"] / results["rounds"]["accepted_per_s"]
    results["speedup_over_all_at_once"] = ours["accepted_per_s"] / results["all_at_once"]["accepted_per_s"]
    results["share_of_ceiling"] = results["decode_tokens_per_s"] / results["ceiling_tokens_per_s"]
    return {k: {a: round(b, 3) for a, b in v.items()} if isinstance(v, dict) else round(v, 3) for k, v in results.items()}


# --------------------------------------------------------------------------------------- ours


class _Verdicts:
    """A grader that knows: the scripted response is `yes` or `no`."""

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        future.set_result(Verdict("correct" if response == "yes" else "wrong"))
        return future

    def close(self) -> None: ...


class _Scripted:
    """The sampler's workload with lengths and verdicts put in; the engine decodes real tokens."""

    def __init__(self, work: Any):
        self.work = work

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        taken = self.work.take(n, timeout)
        return taken and [replace(r, sampling=replace(r.sampling, max_new_tokens=length(int(r.query.id), r.attempt))) for r in taken]

    def put(self, request: Request, completion: Completion) -> None:
        text = "yes" if right(int(request.query.id), request.attempt) else "no"
        self.work.put(request, replace(completion, text=text, finish_reason="stop"))


def _ours(engine: Any, queries: int, folder: Path) -> dict[str, float]:
    from gsi.ledger import Ledger
    from gsi.sampling import Sampler

    ledger = Ledger(folder / "ledger.sqlite")
    started = time.perf_counter()
    sampler = Sampler(
        [Query(str(q), "bench", "", "") for q in range(queries)],
        iteration=0, allocation=Quota(K, WANTED, EXTRA), guidance=None, renderer=_Renderer(), grader=_Verdicts(), ledger=ledger,  # type: ignore[arg-type]
        sampling=lambda attempt: Sampling(0.7, 1.0, LONGEST), seed=0, strategy="bench", model="bench",
    )  # fmt: skip
    with sampler:
        engine.run(_Scripted(sampler))
    seconds = time.perf_counter() - started
    rows = list(ledger.rows())
    ledger.close()
    return _figures({(int(r.query_id), r.attempt): r.generated_tokens for r in rows}, seconds) | {"waste": waste(rows)}


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


# --------------------------------------------------------------------------------------- the patterns to compare with


def _rounds(model: Any, queries: int, rows: int, first: int) -> dict[str, float]:
    """Round by round through generate; the first round draws `first` responses per query."""
    drawn: dict[tuple[int, int], int] = {}
    attempts = dict.fromkeys(range(queries), 0)
    correct = dict.fromkeys(range(queries), 0)
    started = time.perf_counter()
    while wanted := [q for q in range(queries) if attempts[q] < K or (correct[q] < WANTED and attempts[q] < K + EXTRA)]:
        batch = [(q, attempts[q] + i) for q in wanted for i in range(first if attempts[q] == 0 else 1)]
        for begin in range(0, len(batch), rows):
            part = batch[begin : begin + rows]
            _generate(model, [prompt(q) for q, _ in part], [length(q, a) for q, a in part])
        for q, a in batch:
            drawn[q, a] = length(q, a)
            attempts[q] += 1
            correct[q] += right(q, a)
    return _figures(drawn, time.perf_counter() - started)


def _generate(model: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """One batch through the library's own generation; a row that is done pads on until the longest is done."""
    import torch
    from transformers import StoppingCriteria

    class Lengths(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
            return ids.shape[1] - PROMPT >= torch.tensor(lengths)

    ids = torch.tensor(prompts)
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=max(lengths),
            pad_token_id=0, eos_token_id=None, stopping_criteria=[Lengths()],
        )  # fmt: skip


def _ceiling(model: Any, rows: int) -> float:
    """Tokens/s of a bare KV-cache loop: a full batch of `rows` for the mean length, sampled, no bookkeeping at all."""
    import torch

    steps = (SHORTEST + LONGEST) // 2
    ids = torch.tensor([prompt(q % 256) for q in range(rows)])
    with torch.inference_mode():
        cache = model(ids, use_cache=True, logits_to_keep=1)
        past, logits = cache.past_key_values, cache.logits
        started = time.perf_counter()
        for _ in range(steps):
            token = torch.multinomial(torch.softmax(logits[:, -1] / 0.7, -1), 1)
            out = model(token, past_key_values=past, use_cache=True, logits_to_keep=1)
            past, logits = out.past_key_values, out.logits
        return rows * steps / (time.perf_counter() - started)


# --------------------------------------------------------------------------------------- small parts


def _figures(drawn: dict[tuple[int, int], int], seconds: float) -> dict[str, float]:
    correct: dict[int, int] = {}
    for q, a in drawn:
        correct[q] = correct.get(q, 0) + right(q, a)
    accepted = sum(min(c, WANTED) for c in correct.values())
    return {
        "accepted_per_s": accepted / seconds,
        "tokens_per_accepted": sum(drawn.values()) / accepted,
        "accepted": accepted,
        "seconds": seconds,
    }


class _List:
    """A workload of a fixed list."""

    def __init__(self, requests: list[Request]):
        self.requests = requests

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        taken, self.requests = self.requests[:n], self.requests[n:]
        return taken or None

    def put(self, request: Request, completion: Completion) -> None: ...


def _request(q: int, a: int, tokens: int) -> Request:
    return Request(Query(str(q), "bench", "", ""), 0, a, Text("", prompt(q)), Text("", ()), Sampling(0.7, 1.0, tokens), q * 100 + a)


class Tokenizer:
    eos_token_id = None

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return ""


class _Renderer:
    """Prompts by identity instead of text."""

    def prompt(self, query: Query, question: str | None = None) -> Text:
        return Text("", prompt(int(query.id)))

    def continuation(self, prompt: Text, text: str) -> Text:
        return Text(text, ())


def build_model(folder: Path) -> Path:
    """About 1M parameters with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder / "model"

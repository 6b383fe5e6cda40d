"""`gsi bench sampling`: what scheduling and early stopping give, on one model, one machine, in one run.

256 queries, k = 8 plain attempts, then extras until 4 are accepted or 8 extras are spent: the same rule, and so the same
attempts, for every way of drawing (`gsi.bench.workload`).

    ours         the sampler and the embedded engine
    rounds       one response per query per round through model.generate, every round a barrier (the released code's pattern)
    all_at_once  generate with all k of every query, then rounds for the extras
    vllm         the sampler and vLLM, where GSI_VLLM_PYTHON or this interpreter has it, else null

Each is measured `repeats` times in turn and the fastest counts, so that other work on the machine harms none of them alone.
`accepted` = min(correct, wanted) per query. `steps` = forward passes that decode. Scheduling is `speedup_over_...` (the same tokens in
less time), early stopping is `tokens_saved_by_stopping` (what drawing all k + extra of every query would generate, over what is).
`computed` = tokens that went through the model, prompts and rows that were done included. `most_by_scheduling` = those of the rounds over the
least that the same attempts need (every token once, every prompt once): no schedule gains more while a token costs what it costs in the rounds.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gsi.allocation import Quota
from gsi.bench.workload import (
    EXTRA,
    LONGEST,
    PROMPT,
    SHORTEST,
    WANTED,
    Fixed,
    K,
    Lengths,
    Renderer,
    Tokenizer,
    Verdicts,
    build_model,
    length,
    prompt,
    request,
    right,
    waste,
)  # fmt: skip
from gsi.ledger import Ledger
from gsi.sampling import Sampler
from gsi.types import Query, Sampling

Figures = dict[str, float]


def sampling(queries: int = 256, rows: int = 256, repeats: int = 2) -> dict[str, Any]:
    """Runs all and returns the line that the command prints. `rows`: sequences decoded together, the same for all."""
    import torch

    from gsi.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_model(folder)
        engine = TransformersEngine(str(model), Tokenizer(), max_rows=rows)
        engine.stop_ids = frozenset()  # lengths are given
        vllm = _vllm(str(model), rows)
        ways: dict[str, Callable[[], Figures]] = {
            "ours": lambda: _ours(engine, queries, folder),
            "rounds": lambda: _rounds(engine.model, queries, rows, first=1),
            "all_at_once": lambda: _rounds(engine.model, queries, rows, first=K),
            "list": lambda: _list(engine, queries),
            "ceiling": lambda: _ceiling(engine.model, rows),
        }
        if vllm:
            ways["vllm"] = lambda: _ours(vllm, queries, folder)
        try:
            for warm in filter(None, (engine, vllm)):
                warm.run(Fixed([request(q, 0, 8) for q in range(8)]))
            _generate(engine.model, [prompt(0)] * 8, [8] * 8)
            best: dict[str, Figures] = {}
            for _ in range(repeats):
                for way, draw in ways.items():
                    figures = draw()
                    best[way] = min(figures, best.get(way, figures), key=lambda f: f["seconds"])
        finally:
            engine.close()
            if vllm:
                vllm.close()
    return _line(best, queries)


def _line(best: dict[str, Figures], queries: int) -> dict[str, Any]:
    ours, every = best["ours"], [(q, a) for q in range(queries) for a in range(K + EXTRA)]
    compared = ("rounds", "all_at_once")
    line: dict[str, Any] = {"ours": ours} | {way: best[way] for way in compared}
    line["vllm"] = best.get("vllm")
    line["decode_tokens_per_s"], line["ceiling_tokens_per_s"] = best["list"]["tokens_per_s"], best["ceiling"]["tokens_per_s"]
    line["share_of_ceiling"] = line["decode_tokens_per_s"] / line["ceiling_tokens_per_s"]
    decoding, bare = (best[way]["tokens_per_s"] * best[way]["seconds"] / best[way]["cpu_seconds"] for way in ("list", "ceiling"))
    line["share_of_ceiling_by_cpu_time"] = decoding / bare
    line["most_by_scheduling"] = best["rounds"]["computed"] / (ours["tokens_per_accepted"] * ours["accepted"] + queries * PROMPT)
    line["waste"] = ours.pop("waste")
    for way in compared:
        line[f"speedup_over_{way}"] = ours["accepted_per_s"] / best[way]["accepted_per_s"]
        line[f"cpu_time_of_{way}_over_ours"] = best[way]["cpu_seconds"] / ours["cpu_seconds"]  # other work on the machine touches it least
    line["ours_over_vllm"] = ours["accepted_per_s"] / line["vllm"]["accepted_per_s"] if line["vllm"] else None
    if line["vllm"]:
        line["vllm"] = {k: v for k, v in line["vllm"].items() if k not in ("waste", "cpu_seconds")}  # its time is another process's
    line["tokens_saved_by_stopping"] = sum(length(q, a) for q, a in every) / (ours["tokens_per_accepted"] * ours["accepted"])
    return {k: {a: round(b, 3) for a, b in v.items()} if isinstance(v, dict) else v and round(v, 3) for k, v in line.items()}


# --------------------------------------------------------------------------------------- ours


def _vllm(model: str, rows: int) -> Any:
    """vLLM's engine on the same model, or None where it is not installed."""
    from gsi.config.engines import VllmEngine as Settings
    from gsi.engines.vllm import VllmEngine

    python = os.environ.get("GSI_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else None)
    if python is None:
        return None
    engine = VllmEngine(Settings(python=python, max_rows=rows, options={"skip_tokenizer_init": True}), model, Tokenizer())
    engine.stop_ids = frozenset()
    return engine


def _ours(engine: Any, queries: int, folder: Path) -> Figures:
    (folder / "ledger.sqlite").unlink(missing_ok=True)
    ledger = Ledger(folder / "ledger.sqlite")
    clock, before = _Clock(), dict(engine.stats)
    sampler = Sampler(
        [Query(str(q), "bench", "", "") for q in range(queries)],
        iteration=0, allocation=Quota(K, WANTED, EXTRA), guidance=None, renderer=Renderer(), grader=Verdicts(), ledger=ledger,  # type: ignore[arg-type]
        sampling=lambda attempt: Sampling(0.7, 1.0, LONGEST), seed=0, strategy="bench", model="bench",
    )  # fmt: skip
    with sampler:
        engine.run(Lengths(sampler))
    spent = clock.read()
    rows = list(ledger.rows())
    ledger.close()
    drawn = {(int(r.query_id), r.attempt): r.generated_tokens for r in rows}
    counted = {key: value - before[key] for key, value in engine.stats.items()}
    computed = counted["decode_tokens"] + counted["prefill_tokens"]
    return _figures(drawn, spent) | {"steps": counted["decode_steps"], "computed": computed, "waste": waste(rows)}


def _list(engine: Any, queries: int) -> Figures:
    """The same engine with a fixed list of the plain attempts and no decision to wait for: its speed while it is full."""
    everything, before, clock = [request(q, a, length(q, a)) for q in range(queries) for a in range(K)], dict(engine.stats), _Clock()
    engine.run(Fixed(everything))
    spent = clock.read()
    return spent | {"tokens_per_s": (engine.stats["decode_tokens"] - before["decode_tokens"]) / spent["seconds"]}


# --------------------------------------------------------------------------------------- the patterns to compare with


def _rounds(model: Any, queries: int, rows: int, first: int) -> Figures:
    """Round by round through generate; the first round draws `first` responses per query."""
    drawn: dict[tuple[int, int], int] = {}
    attempts, correct, steps, computed = dict.fromkeys(range(queries), 0), dict.fromkeys(range(queries), 0), 0, 0
    clock = _Clock()
    while wanted := [q for q in range(queries) if attempts[q] < K or (correct[q] < WANTED and attempts[q] < K + EXTRA)]:
        batch = [(q, attempts[q] + i) for q in wanted for i in range(first if attempts[q] == 0 else 1)]
        for begin in range(0, len(batch), rows):
            part = batch[begin : begin + rows]
            _generate(model, [prompt(q) for q, _ in part], lengths := [length(q, a) for q, a in part])
            steps += max(lengths)
            computed += len(part) * (PROMPT + max(lengths))
        for q, a in batch:
            drawn[q, a] = length(q, a)
            attempts[q] += 1
            correct[q] += right(q, a)
    return _figures(drawn, clock.read()) | {"steps": steps, "computed": computed}


def _generate(model: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """One batch through the library's own generation; a row that is done pads on until the longest is done."""
    import torch
    from transformers import StoppingCriteria

    wanted = torch.tensor(lengths, device=model.device)

    class Enough(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
            return ids.shape[1] - PROMPT >= wanted

    ids = torch.tensor(prompts, device=model.device)
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=max(lengths),
            pad_token_id=0, eos_token_id=None, stopping_criteria=[Enough()],
        ).tolist()  # fmt: skip


def _ceiling(model: Any, rows: int) -> Figures:
    """A bare KV-cache loop: a full batch of `rows` for the mean length, sampled, no bookkeeping at all."""
    import torch

    steps = (SHORTEST + LONGEST) // 2
    ids = torch.tensor([prompt(q % 256) for q in range(rows)], device=model.device)
    with torch.inference_mode():
        out = model(ids, use_cache=True, logits_to_keep=1)
        out.logits.sum().item()  # what is asked of a GPU is done
        clock = _Clock()
        for _ in range(steps):
            token = torch.multinomial(torch.softmax(out.logits[:, -1] / 0.7, -1), 1)
            out = model(token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        token.tolist()
        spent = clock.read()
    return spent | {"tokens_per_s": rows * steps / spent["seconds"]}


# --------------------------------------------------------------------------------------- figures


class _Clock:
    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> Figures:
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def _figures(drawn: dict[tuple[int, int], int], spent: Figures) -> Figures:
    correct: dict[int, int] = {}
    for q, a in drawn:
        correct[q] = correct.get(q, 0) + right(q, a)
    accepted = sum(min(c, WANTED) for c in correct.values())
    return {
        "accepted_per_s": accepted / spent["seconds"],
        "tokens_per_accepted": sum(drawn.values()) / accepted,
        "accepted": accepted,
    } | spent

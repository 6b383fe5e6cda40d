"""The embedded engine: continuous batching of any full-attention causal LM of transformers, on CPU or one GPU.

Every active response owns a slot (a row of a preallocated KV cache). Rows keep their own position, so nothing is
padded while decoding: a finished row's slot is taken by the last row at once, and free slots are refilled from the
workload. Attempts that share a prompt share its prefill.

Sampling is by inverse CDF from one uniform number per token, a hash of (request seed, position): what a request draws
does not depend on what else is in the batch, except that floating point may change a logit in its last bits.

Left out: reuse of nested prefixes and paged memory (vLLM's job), models whose layers are not plain attention.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from gsi.engines.draw import draw, repeats
from gsi.engines.loading import load_model, out_of_memory, pick_device, stop_ids, window_of
from gsi.engines.scoring import entropies, score
from gsi.engines.slots import SlotCache
from gsi.engines.text import completion, may_end, token_ids
from gsi.types import Completion, GsiError, Request, Text, Workload


@dataclass
class _Row:
    """One response in the making. `ids` grows by one token per decoding step."""

    request: Request
    next_token: int
    position: int  # where next_token goes
    room: int  # tokens that may still be generated
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # where the request asks for them


class TransformersEngine:
    """Runs requests on `model`.

    Args:
        model: directory or hub id of a causal LM.
        tokenizer: for decoding and the end token.
        max_rows: sequences decoded together.
        max_batch_tokens: bound on rows x longest sequence held in the KV cache.
        max_length: prompt + response; None = the model's context.

    Raises GsiError for a model that cannot be loaded or whose cached decoding does not equal its plain forward pass.
    """

    capabilities = frozenset({"prefix", "ids", "seeds", "score", "entropy", "logprobs", "repetition_stop"})

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        device: str = "auto",
        dtype: str = "auto",
        max_rows: int = 128,
        max_batch_tokens: int = 262_144,
        max_length: int | None = None,
    ):
        self.device = pick_device(device)
        self.tokenizer = tokenizer
        self.model: Any = load_model(model, self.device, dtype)
        config = self.model.config.get_text_config()
        self.context = min(max_length or 2**31, getattr(config, "max_position_embeddings", None) or 2**31)
        self.parameters = self.model.num_parameters()
        self.stop_ids = stop_ids(self.model, tokenizer)
        self.max_rows, self.max_batch_tokens = max_rows, max_batch_tokens
        self.window = window_of(config, self.context, model)
        self._keep_last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}
        self._cache = SlotCache(max_rows, max_batch_tokens)
        self._pieces: dict[int, str] = {}  # token id -> its text alone
        self._rows: list[_Row] = []  # row i lives in slot i
        self._waiting: deque[Request | None] = deque()  # taken, but over the token budget for now
        counts = ("prefill_tokens", "reused_tokens", "decode_tokens", "decode_steps", "back_offs")
        self.stats: dict[str, Any] = dict.fromkeys(counts, 0) | {"seconds": 0.0, "idle_seconds": 0.0}
        self._self_check(model)

    def close(self) -> None:
        self.model = None
        self._empty_cache(1, 1)

    @torch.inference_mode()
    def run(self, work: Workload) -> None:
        started = time.perf_counter()
        more = True
        try:
            while more or self._rows or self._waiting:
                starved: str | None = None
                try:
                    if more or self._waiting:
                        more = self._refill(work)
                    if self._rows:
                        self._step(work)
                except RuntimeError as e:
                    if not out_of_memory(e):
                        raise
                    starved = str(e)
                if starved is not None:  # out here: inside, the traceback still holds the activations
                    self._back_off(starved)
        finally:
            self._rows.clear()
            self._waiting.clear()
            self.stats["seconds"] += time.perf_counter() - started

    def _back_off(self, error: str) -> None:
        """Out of memory: half the rows from now on. What was in flight starts again; its seeds give the same responses."""
        if self.max_rows == 1:
            raise GsiError(
                f"engine transformers: out of memory with a single sequence; lower sample.max_new_tokens or engine.max_length: {error}"
            )
        self._waiting.extendleft(row.request for row in reversed(self._rows))
        self._rows.clear()
        self.max_rows = max(1, self.max_rows // 2)
        self.max_batch_tokens = max(1, self.max_batch_tokens // 2)
        self._empty_cache(self.max_rows, self.max_batch_tokens)
        self.stats["back_offs"] += 1

    def _empty_cache(self, rows: int, tokens: int) -> None:
        self._cache = SlotCache(rows, tokens)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def score(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        """Log-probability, at temperature 1, of every id of each completion after its prompt."""
        return score(self.model, pairs, self.max_rows)

    def entropies(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        """Entropy in nats, at temperature 1, of the distribution that every id of each completion is drawn from."""
        return entropies(self.model, pairs, self.max_rows)

    # ----------------------------------------------------------------------------------- filling slots

    def _refill(self, work: Workload) -> bool:
        """Fills free slots from the workload, as far as the token budget allows; False = the workload is done."""
        free, more = self.max_rows - len(self._rows), True
        # prefilling a few rows costs nearly a whole decoding step: wait until some slots are free, unless idle
        if self._rows and free < max(1, self.max_rows // 8):
            return True
        if not self._waiting:
            asked = time.perf_counter()
            requests = work.take(free, timeout=0.0 if self._rows else 0.2)
            self.stats["idle_seconds"] += 0.0 if self._rows else time.perf_counter() - asked  # nothing to decode meanwhile
            more = requests is not None
            self._waiting.extend(self._check(request, work) for request in requests or ())
        admitted: list[Request] = []
        longest = max((row.position + 1 + row.room for row in self._rows), default=0)
        while self._waiting and len(self._rows) + len(admitted) < self.max_rows:
            request = self._waiting[0]
            if request is not None:
                longest = max(longest, min(self.context, _length(request) + request.sampling.max_new_tokens))
                if (len(self._rows) + len(admitted) + 1) * longest > self.max_batch_tokens and (self._rows or admitted):
                    break
                admitted.append(request)
            self._waiting.popleft()
        if admitted:
            self._prefill(admitted)
        return more

    def _check(self, request: Request, work: Workload) -> Request | None:
        """The request, or None where it was answered at once because it cannot run."""
        tokens = _length(request)
        if tokens == 0:
            work.put(request, Completion("", (), "error", 0, detail="empty prompt"))
        elif tokens >= self.context:
            work.put(request, Completion("", (), "too_long", 0, detail=f"{tokens} tokens, the context holds {self.context}"))
        else:
            return request
        return None

    def _prefill(self, requests: list[Request]) -> None:
        """Fills the cache with all but the last token of each prompt; that one is the first decoding step's input."""
        first = len(self._rows)
        prompts: dict[tuple[int, ...], list[int]] = {}  # distinct prompt -> slots
        for i, request in enumerate(requests):
            ids = _ids(request.prompt) + _ids(request.given)
            prompts.setdefault(ids[:-1], []).append(first + i)
            self.stats["reused_tokens"] += len(ids) - 1 if len(prompts[ids[:-1]]) > 1 else 0
            room = min(request.sampling.max_new_tokens, self.context - len(ids))
            self._rows.append(_Row(request, ids[-1], len(ids) - 1, room))
        self._cache.reserve(
            len(self._rows), first, max(r.position for r in self._rows) + 1, max(r.position + 1 + r.room for r in self._rows)
        )
        # similar lengths together, so that little is padded; bounded so that long prompts do not exhaust memory
        pending = sorted((p for p in prompts if p), key=len)
        while pending:
            size = max(1, min(len(pending), self.max_rows, 16_384 // len(pending[-1])))
            batch, pending = pending[-size:], pending[:-size]
            self._prefill_batch(batch, [prompts[p] for p in batch])

    def _prefill_batch(self, prompts: list[tuple[int, ...]], slots: list[list[int]]) -> None:
        longest = max(map(len, prompts))
        ids = torch.tensor([[*p, *[0] * (longest - len(p))] for p in prompts], device=self.device)  # (b, q), right-padded
        positions = torch.arange(longest, device=self.device)
        causal = positions[:, None] >= positions[None, :]
        if self.window:
            causal = causal & (positions[:, None] - positions[None, :] < self.window)
        source = [i for i, group in enumerate(slots) for _ in group]
        self._cache.prefill([s for group in slots for s in group], source)
        self._forward(ids, positions.expand(len(prompts), -1), causal.expand(len(prompts), 1, -1, -1))
        self.stats["prefill_tokens"] += sum(map(len, prompts))

    # ----------------------------------------------------------------------------------- decoding

    def _step(self, work: Workload) -> None:
        """One token for every active row; finished rows are handed back and their slots closed up."""
        rows = self._rows
        logits = self._decode_logits([r.next_token for r in rows], [r.position for r in rows])
        tokens = self._choose(logits, rows)
        self.stats["decode_tokens"] += len(rows)
        self.stats["decode_steps"] += 1
        finished: list[tuple[int, str]] = []
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row.ids.append(token)
            row.next_token = token
            row.position += 1
            row.room -= 1
            if token in self.stop_ids or (row.request.sampling.stop and self._hit_stop(row)):
                finished.append((i, "stop"))
            elif row.request.sampling.repetition_stop and repeats(row.ids, row.request.sampling.repetition_stop):
                finished.append((i, "repetition"))
            elif row.room == 0:
                finished.append((i, "length"))
        done = [(rows[i], reason) for i, reason in finished]
        moves = []
        for i, _ in reversed(finished):  # the last row moves into the hole
            last = len(rows) - 1
            if i != last:
                rows[i] = rows[last]
                moves.append((last, i))
            rows.pop()
        self._cache.move(moves)
        for row, reason in done:
            work.put(row.request, self._completion(row, reason))

    def _decode_logits(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        """Logits (rows, vocabulary) of the next token of every row."""
        longest = max(positions) + 1
        self._cache.reserve(len(positions), len(positions), longest, max((r.position + 1 + r.room for r in self._rows), default=longest))
        position = torch.tensor(positions, device=self.device)[:, None]  # (rows, 1)
        where = torch.arange(longest, device=self.device)[None, :]
        mask = where <= position
        if self.window:
            mask = mask & (position - where < self.window)
        self._cache.decode(position[:, 0], longest)
        return self._forward(torch.tensor(tokens, device=self.device)[:, None], position, mask[:, None, None, :])[:, -1]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.model.config._attn_implementation == "eager":  # adds its mask to the scores
            mask = torch.zeros(mask.shape, dtype=self.model.dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(self.model.dtype).min
            )
        return self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self._cache, use_cache=True, **self._keep_last
        ).logits

    def _choose(self, logits: torch.Tensor, rows: list[_Row]) -> list[int]:
        """Greedy or sampled tokens, one per row."""
        tokens = draw(logits, [r.request for r in rows], [len(r.ids) for r in rows])
        if any(r.request.sampling.logprobs for r in rows):
            logp = torch.log_softmax(logits.float(), -1).gather(-1, tokens[:, None])[:, 0].tolist()
            for row, value in zip(rows, logp, strict=True):
                row.logprobs.append(value)
        return tokens.tolist()

    def _hit_stop(self, row: _Row) -> bool:
        stops, last = row.request.sampling.stop, row.ids[-1]
        if last not in self._pieces:
            self._pieces[last] = self.tokenizer.decode([last], skip_special_tokens=True)
        if not may_end(self._pieces[last], stops):
            return False
        longest = max(len(stop.encode()) for stop in stops)  # a character may be as many tokens as it has bytes
        tail = self.tokenizer.decode(row.ids[-(2 + longest) :], skip_special_tokens=True)
        return any(stop in tail for stop in stops)

    def _completion(self, row: _Row, reason: str) -> Completion:
        done = completion(self.tokenizer, row.request, row.ids, reason)
        return replace(done, logprobs=tuple(row.logprobs[: len(done.ids or ())])) if row.request.sampling.logprobs else done

    # ----------------------------------------------------------------------------------- trust

    @torch.inference_mode()
    def _self_check(self, name: str) -> None:
        """Two made-up rows through prefill and one decoding step must give the logits of the plain forward pass.

        Catches architectures that read the cache, the mask or the positions in a way of their own.
        """
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        length = min(9, self.context - 1)
        rng = np.random.default_rng(0)
        rows = [rng.integers(0, vocabulary, n).tolist() for n in (length, max(1, length - 4))]
        try:
            self._cache.reserve(2, 0, length, length)
            self._prefill_batch([tuple(r[:-1]) for r in rows if len(r) > 1], [[i] for i, r in enumerate(rows) if len(r) > 1])
            ours = self._decode_logits([r[-1] for r in rows], [len(r) - 1 for r in rows])
            plain = torch.stack([self.model(input_ids=torch.tensor([r], device=self.device)).logits[0, -1] for r in rows])
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as e:
            if isinstance(e, RuntimeError) and out_of_memory(e):
                raise GsiError(
                    f"engine transformers: no memory is left beside {name} on {self.device}; free some, or use another: {e}"
                ) from e
            raise GsiError(
                f"engine transformers: {name} ({type(self.model).__name__}) cannot be decoded with this engine: {e}; use `engine: {{kind: vllm}}` or a server"
            ) from e
        finally:
            self.stats["prefill_tokens"] = 0
        scale = plain.float().abs().max().item() or 1.0
        error = (ours.float() - plain.float()).abs().max().item() / scale
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 5e-2
        if not error <= tolerance:
            raise GsiError(
                f"engine transformers: cached decoding of {name} ({type(self.model).__name__}) differs from its plain forward pass "
                f"by {error:.2g} of the largest logit (allowed {tolerance:g}); use `engine: {{kind: vllm}}` or a server for this architecture"
            )


def _length(request: Request) -> int:
    return len(_ids(request.prompt)) + len(_ids(request.given))


def _ids(text: Text) -> tuple[int, ...]:
    return token_ids(text, "transformers")

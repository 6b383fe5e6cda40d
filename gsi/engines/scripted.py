"""An engine that is a function, for tests: `function(request, model) -> str | Completion`.

It keeps several requests in flight and, on request, completes them in a shuffled order, so that tests can show that
nothing depends on who finishes first. Tokens are UTF-8 bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from gsi.types import Completion, Request, Text, Workload


class ByteTokenizer:
    """One token per UTF-8 byte, 256 = end. What the renderer needs of a tokenizer, and nothing else."""

    eos_token_id, bos_token_id, bos_token, chat_template = 256, None, None, None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class ScriptedEngine:
    """Runs requests through a function.

    Args:
        function: (request, model path) -> response text (what follows `given`), or a whole Completion.
        max_rows: requests in flight.
        shuffle: seed of the completion order; None = first in, first out.
        scorer: (prompt, completion, model path) -> log-probability of every id of the completion; None = it cannot score.
        entropy: (prompt ids, completion ids) -> entropy at every completion token; None = this engine cannot tell.
    """

    def __init__(
        self,
        function: Callable[[Request, str], Any],
        model: str,
        max_rows: int = 16,
        shuffle: int | None = None,
        scorer: Callable[[Text, Completion, str], list[float]] | None = None,
        entropy: Callable[[Sequence[int], Sequence[int]], Sequence[float]] | None = None,
    ):
        self.function, self.model, self.max_rows, self.scorer, self.entropy = function, model, max_rows, scorer, entropy
        more = {"score"} if scorer else set()
        self.capabilities = frozenset({"prefix", "ids", "seeds"} | more | ({"entropy"} if entropy else set()))
        self._order = random.Random(shuffle) if shuffle is not None else None
        self.stats: dict[str, float] = {"prefill_tokens": 0, "decode_tokens": 0}

    def run(self, work: Workload) -> None:
        flight: list[Request] = []
        more = True
        while more or flight:
            if more and len(flight) < self.max_rows:
                taken = work.take(self.max_rows - len(flight), timeout=0.0 if flight else 0.05)
                more = taken is not None
                flight += taken or []
            if flight:
                request = flight.pop(self._order.randrange(len(flight)) if self._order else 0)
                work.put(request, self._complete(request))

    def _complete(self, request: Request) -> Completion:
        answer = self.function(request, self.model)
        if isinstance(answer, Completion):
            return answer
        ids = (*answer.encode(), ByteTokenizer.eos_token_id)
        return Completion(answer, ids, "stop", generated_tokens=len(ids))

    def score(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        assert self.scorer is not None
        return [self.scorer(prompt, completion, self.model) for prompt, completion in pairs]

    def entropies(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        assert self.entropy is not None
        return [list(self.entropy(prompt.ids or (), completion.ids or ())) for prompt, completion in pairs]

    def close(self) -> None:
        pass

"""The model that samples as its own teacher: questions to it run on the same engine, between the attempts.

No server, no second model: a hint worker that asks puts a request in front of the attempts that wait, and gets the completion back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future

from gsi.prompts import Renderer
from gsi.recording import asking
from gsi.seeds import seed_of
from gsi.types import Completion, Query, Reply, Request, Sampling, Text, Workload

ASK = "ask"  # `Request.guidance` of a question to the model itself; no such request is an attempt
POLL = 0.02  # seconds between looks for a new question while the engine waits for attempts


class SelfTeacher:
    """A teacher whose answers the run's own engine generates, and the workload that brings its questions to that engine.

    Run the engine on it instead of on `work` (set before the engine starts). A reply depends on the model, the messages and a seed made
    of the attempt's identity, never on when it was asked. Thread-safe.
    """

    def __init__(self, renderer: Renderer, sampling: Sampling, seed: int, model: str):
        self.renderer, self.sampling, self.seed, self.model = renderer, sampling, seed, model
        self.work: Workload | None = None
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._asked: dict[tuple[str, int], Future[Completion]] = {}
        self._closed = False

    # ----------------------------------------------------------------------------------- the hint worker's side

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        """Blocks until the engine has answered; no text where the prompt was too long or the request failed. Raises CancelledError once closed."""
        query_id, iteration, attempt = asking.key
        prompt = self.renderer.messages(messages)
        seed = seed_of(self.seed, ASK, iteration, query_id, attempt)
        request = Request(Query(query_id, "", prompt.text, ""), iteration, attempt, prompt, Text("", ()), self.sampling, seed, ASK)
        with self._lock:
            if self._closed:
                raise CancelledError
            future = self._asked[query_id, attempt] = Future()
            self._waiting.append(request)
        done = future.result()
        text = done.text if done.finish_reason in ("stop", "length", "repetition") else ""
        read = prompt.n_tokens if done.prompt_tokens is None else done.prompt_tokens
        return Reply(text, read, done.generated_tokens, self.model)

    def close(self) -> None:
        """The engine has ended: who still waits for an answer is told so."""
        with self._lock:
            self._closed = True
            asked, self._asked = list(self._asked.values()), {}
        for future in asked:
            future.set_exception(CancelledError())

    # ----------------------------------------------------------------------------------- the engine's side

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        assert self.work is not None
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                mine = [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]
            if mine:
                return mine + ((self.work.take(n - len(mine)) or []) if n > len(mine) else [])
            left = deadline - time.monotonic()
            taken = self.work.take(n, max(0.0, min(left, POLL)))
            if taken is None or taken or left <= 0:  # None: no query is open, so nobody can be asking
                return taken

    def put(self, request: Request, completion: Completion) -> None:
        assert self.work is not None
        if request.guidance != ASK:
            self.work.put(request, completion)
            return
        with self._lock:
            future = self._asked.pop((request.query.id, request.attempt), None)
        if future is not None:
            future.set_result(completion)

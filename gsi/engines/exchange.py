"""What goes between us and an OpenAI-compatible server: reading an answer, and how many requests may be under way."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from gsi.types import Completion, Request, Workload, writable

MAX_RETRY_AFTER = 600.0  # seconds; a server that asks for more is asked again after this


class RequestFailed(Exception):
    """One request cannot be answered; others may be."""

    def __init__(self, problem: str, too_long: bool = False):
        super().__init__(problem)
        self.too_long = too_long  # prompt (+ max_tokens) exceeds the server's context


@dataclass(frozen=True)
class Answer:
    """One completion as the server sent it; None = it does not say."""

    text: str
    reason: str | None
    ids: tuple[int, ...] | None
    prompt_tokens: int | None
    generated: int | None
    cached: int  # of the prompt tokens, those whose prefill was reused
    model: str | None = None  # who answered


class Held:
    """Requests that failed for good, until it is known whether it was they or the server: an answer to a later request tells."""

    def __init__(self) -> None:
        self.in_a_row = 0  # failed since any answer
        self._failed: deque[tuple[float, Request, RequestFailed]] = deque()  # when (monotonic seconds), what, why

    def __bool__(self) -> bool:
        return bool(self._failed)

    def add(self, request: Request, failure: RequestFailed) -> None:
        self.in_a_row += 1
        self._failed.append((time.monotonic(), request, failure))

    def answered(self, work: Workload, since: float) -> None:
        """The server has answered a request that was handed in at `since`: what failed before that is data."""
        self.in_a_row = 0
        while self._failed and self._failed[0][0] < since:
            _, request, failure = self._failed.popleft()
            work.put(request, Completion("", None, "error", 0, detail=str(failure)))


def read(body: str) -> Answer:
    """The only choice of a completion or chat completion. Raises ValueError, naming what is wrong."""
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list):
        raise ValueError(f"no choices in {' '.join(body.split())[:100]!r}")
    if len(choices) != 1 or not isinstance(choices[0], dict):
        raise ValueError(f"{len(choices)} choices, asked for 1")
    choice, usage = choices[0], answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    message = choice.get("message")
    text = (message.get("content") or "") if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        raise ValueError("a choice without text")
    reason, ids, model = choice.get("finish_reason"), choice.get("token_ids"), answer.get("model")
    if not isinstance(reason, str | None):
        raise ValueError(f"finish_reason {str(reason)[:40]!r}")
    if isinstance(ids, list) and not all(_is_count(i) for i in ids):
        raise ValueError("token_ids that are no numbers")
    details = usage.get("prompt_tokens_details")
    return Answer(
        writable(text),
        reason,
        tuple(ids) if isinstance(ids, list) else None,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(details.get("cached_tokens") if isinstance(details, dict) else None) or 0,
        model if isinstance(model, str) else None,
    )


def _count(value: Any) -> int | None:
    """A number of tokens; None for whatever else a server may put there."""
    return value if _is_count(value) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header (seconds or a date) asks for; 0 = it does not."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(0.0, seconds), MAX_RETRY_AFTER)


class Throttle:
    """Requests that may be under way: additive increase, multiplicative decrease (as TCP's congestion control).

    Halved when the server says that it is overloaded, but once only for all that were sent before; one more for every
    full round of answers. An async context manager around each request.
    """

    def __init__(self, most: int):
        self.most, self._limit = most, float(most)
        self._active = 0
        self._shrunk = self._resume = 0.0  # when it was last halved; nothing is sent before the other (monotonic seconds)
        self._freed = asyncio.Event()

    @property
    def room(self) -> int:
        return max(1, int(self._limit))

    def shrink(self, sent: float, pause: float) -> None:
        """A request sent at `sent` was turned away; `pause` seconds are asked for."""
        now = time.monotonic()
        self._resume = max(self._resume, now + pause)
        if sent >= self._shrunk:
            self._limit = max(1.0, min(self._limit, self._active) / 2)
            self._shrunk = now

    def grow(self) -> None:
        self._limit = min(self.most, self._limit + 1 / self._limit)

    async def __aenter__(self) -> None:
        while True:
            if (pause := self._resume - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            elif self._active < self.room:
                self._active += 1
                return
            else:
                self._freed.clear()
                await self._freed.wait()

    async def __aexit__(self, *error: object) -> None:
        self._active -= 1
        self._freed.set()

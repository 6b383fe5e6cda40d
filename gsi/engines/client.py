"""One OpenAI-compatible server as seen from an event loop: requests with retries, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Callable
from typing import Any

import openai

from gsi.config.engines import OpenAIEngine as Settings
from gsi.engines.exchange import Answer, RequestFailed, Throttle, read, retry_after
from gsi.types import EngineLost, GsiError
from gsi.wire import Bounded

BACKOFF, MAX_WAIT = 0.5, 30.0  # seconds before the first retry, doubled for each further one, and at most; plus or minus half
_TOO_LONG = re.compile(r"context.?(length|size|window)|maximum model length|max_model_len|too long|longer than the (maximum )?model", re.I)
_NO_MODEL = re.compile(
    r"model_not_found|(unknown|invalid|no such|not a valid) model|\bmodel\b.{0,80}(does not exist|not found|not (available|loaded|served))",
    re.I,
)


class Client:
    """Sends completion or chat requests for `model`, as many at a time as its throttle lets through.

    `log`: what to add to an error (the end of a launched server's log). Raises GsiError for a key that no header can carry.
    """

    def __init__(self, settings: Settings, model: str, log: Callable[[], str]):
        self.settings, self.model, self._log = settings, model, log
        self._key = os.environ.get(settings.api_key_env, "").strip() or "none"
        if not (self._key.isascii() and self._key.isprintable()):
            raise GsiError(f"engine.api_key_env: the key in ${settings.api_key_env} has characters that no header can carry; set it anew")
        assert isinstance(settings.url, str)  # one server's
        self._client = openai.AsyncOpenAI(
            base_url=settings.url, api_key=self._key, max_retries=0, timeout=settings.timeout, http_client=Bounded()
        )
        self.throttle = Throttle(settings.concurrency)
        self.extra: dict[str, Any] = {}  # fields beyond the standard ones, sent with every request
        self.answered = self.retries = 0
        self._answers_as: str | None = None  # the model's name in the first answer

    async def close(self) -> None:
        await self._client.close()

    async def send(self, body: dict[str, Any], rng: random.Random) -> Answer:
        """Sends until there is an answer. Raises RequestFailed when the request fails for good, GsiError when the server does."""
        tries = failures = 0
        before = self.answered  # by all requests, when this one last failed
        while True:
            gone = busy = False
            async with self.throttle:
                sent = time.monotonic()
                try:
                    answer = read(await self._post(body))
                except openai.APIStatusError as e:
                    problem = f"answered {e.status_code}: {self._said(e)}"
                    self._refuse(e, problem)
                    if e.status_code < 500 and e.status_code not in (408, 409, 429):
                        raise RequestFailed(problem, too_long=bool(_TOO_LONG.search(problem))) from None
                    if busy := e.status_code in (429, 503):
                        self.throttle.shrink(sent, retry_after(e.response.headers.get("retry-after")))
                except openai.APITimeoutError:
                    problem, gone = f"gave no answer within {self.settings.timeout:g} s", True
                except openai.APIConnectionError as e:
                    problem, gone = f"cut the connection: {self.hide(str(e.__cause__ or e))}", True
                except ValueError as e:
                    problem = f"answered with something that is no completion: {e}"
                else:
                    self._same_model(answer.model)
                    self.throttle.grow()
                    self.answered += 1
                    return answer
            tries += 1
            failures += not (busy and self.answered > before)
            before = self.answered
            if failures > self.settings.retries:
                if gone and not await self._alive():
                    raise EngineLost(str(self.error(f"is gone: it {problem}, and does not answer at /models", "start it again")))
                raise RequestFailed(f"{problem} (tries: {tries})")
            self.retries += 1
            await asyncio.sleep(min(MAX_WAIT, BACKOFF * 2 ** min(tries - 1, 10)) * (0.5 + rng.random()))

    def _same_model(self, name: str | None) -> None:
        """Raises for a server that answers as another model than it did at first: it was started anew, or its weights were exchanged."""
        self._answers_as = self._answers_as or name
        if name is not None and name != self._answers_as:
            raise self.error(
                f"answers as {name!r} now, and as {self._answers_as!r} before", "make it serve that model again, then run the same command"
            )

    async def _post(self, body: dict[str, Any]) -> str:
        create: Any = self._client.chat.completions if self.settings.api == "chat" else self._client.completions
        raw = await create.with_raw_response.create(model=self.model, n=1, extra_body=self.extra, **body)
        return raw.http_response.text

    def _refuse(self, e: openai.APIStatusError, problem: str) -> None:
        """Raises for an answer that every other request would get too."""
        if e.status_code == 401 or e.status_code == 403:
            raise self.error(
                problem, f"set the environment variable {self.settings.api_key_env} to a key that may use this model"
            ) from None
        if e.status_code == 404 or (e.status_code == 400 and _NO_MODEL.search(f"{e.code} {problem}") and not _TOO_LONG.search(problem)):
            raise self.error(
                problem, "correct engine.served_model, or engine.url (the base that ends in /v1), or engine.api (completions or chat)"
            ) from None

    async def _alive(self) -> bool:
        for _ in range(3):
            try:
                await self.models()
                return True
            except openai.APIConnectionError:
                await asyncio.sleep(0.2)
        return False

    async def models(self) -> list[dict[str, Any]] | None:
        """What the server lists; [] where it lists nothing or has no list, None where it is not ready."""
        try:
            raw = await self._client.models.with_raw_response.list(timeout=min(30.0, self.settings.timeout))
            listed = json.loads(raw.http_response.text)["data"]
            return [entry for entry in listed if isinstance(entry.get("id"), str)]
        except openai.APIStatusError as e:
            return None if e.status_code >= 500 else []
        except (ValueError, KeyError, TypeError, AttributeError):
            return []

    async def ready(self) -> bool:
        try:
            return await self.models() is not None
        except openai.APIConnectionError:
            return False

    def error(self, problem: str, fix: str) -> GsiError:
        return GsiError(f"engine openai: the server at {self.settings.url} (asked for model {self.model!r}) {problem}; {fix}{self._log()}")

    def _said(self, e: openai.APIStatusError) -> str:
        body = e.body
        return self.hide(str((body.get("message") or body) if isinstance(body, dict) else body or e.message))

    def hide(self, text: str) -> str:
        """One line of at most 300 characters without the key."""
        text = text if self._key == "none" else text.replace(self._key, "***")
        return " ".join(text.split())[:300]

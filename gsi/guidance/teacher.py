"""A teacher behind any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import openai

from gsi.config.sampling import Teacher as Settings
from gsi.types import GsiError, Reply, writable
from gsi.wire import Bounded


class OpenAITeacher:
    """Asks `settings.model` at `settings.url`; at most `settings.concurrency` requests at a time. Thread-safe.

    The client retries failed connections, 408, 409, 429 and 5xx with exponential backoff and obeys Retry-After. The
    key comes from the environment variable `settings.api_key_env` ("none" if it is not set, for servers that need
    none) and appears in no message. Raises GsiError for a key that cannot be sent in a header.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._key = os.environ.get(settings.api_key_env, "").strip() or "none"
        if not (self._key.isascii() and self._key.isprintable()):
            raise GsiError(f"teacher.api_key_env: the key in ${settings.api_key_env} has characters that no header can carry; set it anew")
        self._answers_as: str | None = None  # the model's name in the first answer
        self._room = threading.Semaphore(settings.concurrency)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="teacher", daemon=True).start()
        self._client = openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=self._key,
            max_retries=settings.retries,
            timeout=settings.timeout,
            http_client=Bounded(),
        )

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        """The teacher's answer, with the tokens the server counted (0 where it counts none). Blocks.

        Raises GsiError, with url, model and what to do, when the server cannot be reached or refuses after all retries.
        """
        return self._ask(messages, self._settings.max_tokens)

    def probe(self) -> Reply:
        """One tiny request, so that a teacher that cannot be reached stops a run before anything is sampled. Raises as `ask`."""
        return self._ask([{"role": "user", "content": "Reply with OK."}], min(8, self._settings.max_tokens))

    def close(self) -> None:
        """Closes the connections."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _ask(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Reply:
        request: Any = [dict(m) for m in messages]
        try:
            with self._room:
                sent = self._client.chat.completions.create(
                    model=self._settings.model, messages=request, temperature=self._settings.temperature, max_tokens=max_tokens
                )
                answer: Any = asyncio.run_coroutine_threadsafe(sent, self._loop).result()
        # `from None`: the causes hold the request, and with it the key
        except openai.APIStatusError as e:
            raise self._error(f"answered {e.status_code}: {_text(e)}", _FIXES.get(e.status_code, "see the server's log")) from None
        except openai.APITimeoutError:
            fix = "raise teacher.timeout or lower teacher.concurrency"
            raise self._error(f"gave no answer within {self._settings.timeout:g} s", fix) from None
        except openai.APIConnectionError as e:
            reason = f" ({e.__cause__})" if e.__cause__ else ""
            raise self._error(f"cannot be reached{reason}", "start the server or correct teacher.url") from None
        except ValueError:  # a body that is no JSON
            raise self._error(*_NO_COMPLETION) from None
        choices = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        text = getattr(message, "content", None) if message is not None else 0
        if not isinstance(text, str | None):
            raise self._error(*_NO_COMPLETION)
        name = getattr(answer, "model", None)
        name = name if isinstance(name, str) and name else self._settings.model
        if (first := self._answers_as) != name:
            if first is not None:
                fix = f"the server has another model than when this run began to ask; make it serve {first!r} again"
                raise self._error(f"answered as {name!r}, and as {first!r} before", fix)
            self._answers_as = name
        usage = getattr(answer, "usage", None)
        return Reply(writable(text or ""), _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), name)

    def _error(self, problem: str, fix: str) -> GsiError:
        s = self._settings
        if self._key != "none":  # hidden before it is shortened, lest a piece of the key remain
            problem = problem.replace(self._key, "***")
        return GsiError(f"teacher {s.model!r} at {s.url} {_shorten(problem)} (after {s.retries} retries where they could help); {fix}")


_NO_COMPLETION = ("answered with something that is no chat completion", "teacher.url must be the base that ends in /v1")
_FIXES = {
    400: "see the message; the model may not take temperature, max_tokens or a prompt of this length",
    401: "set the environment variable that teacher.api_key_env names to a valid key",
    403: "the key in teacher.api_key_env may not use this model",
    404: "correct teacher.model to one that the server lists under /models, and teacher.url to the base that ends in /v1",
    429: "lower teacher.concurrency, raise teacher.retries, or wait for the quota",
}


def _count(usage: Any, name: str) -> int:
    """Tokens as the server counted them; 0 where it counts none, or something that is no number."""
    found = getattr(usage, name, None)
    return found if isinstance(found, int) and found >= 0 else 0


def _text(error: openai.APIStatusError) -> str:
    """What the server said."""
    body = error.body
    return str((body.get("message") or body) if isinstance(body, dict) else body or error.message)


def _shorten(text: str) -> str:
    """One line of at most 400 characters."""
    return " ".join(text.split())[:400]

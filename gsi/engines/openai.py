"""Any OpenAI-compatible server as an engine: vLLM, SGLang, TGI, llama.cpp, Ollama, hosted ones.

What is sent. `api: completions`: the rendered prompt and what is given, as token ids where the server takes them (so it
reads exactly the tokens that are trained on, BOS included), else as text, to which the server adds its own BOS.
`api: chat`: one user message that holds the rendered prompt as it is, so `prompt.template` should be `{question}`; the
server applies its own chat template around it, and a given prefix cannot be continued.

Requests run on an event loop in a thread of their own; the caller's thread moves them between workload and loop.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import openai

from gsi.config.engines import OpenAIEngine as Settings
from gsi.engines.client import Client
from gsi.engines.exchange import Answer, Held, RequestFailed
from gsi.engines.server import Server
from gsi.engines.text import completion, stored_end_ids
from gsi.types import Completion, EngineLost, GsiError, Request, Workload
from gsi.weights import count_parameters

FAILURES = 32  # requests in a row that fail after all their retries stop the run: the server is broken, not the requests
_STOP = {"stop", "eos", "eos_token", "stop_sequence"}  # older servers name the reason in more detail


class OpenAIEngine:
    """Runs requests on the server at `settings.url` (number `index` of several), which must serve `model` (or `settings.served_model`).

    With `settings.launch` the server is started here and ended by `close`. The number of requests in flight is halved
    on 429 and 503 and grows by one per full round of answers, up to `settings.concurrency`; Retry-After is obeyed.
    Failed connections, timeouts, 408, 409, 429, 5xx and answers that are no completion are retried with exponential
    backoff and jitter; a 429 or 503 does not count as a failed try while other requests get through. What still
    fails is data once the server has answered something else: a Completion with finish_reason `error` and the reason in
    `detail`. A server that answers nothing any more is at fault itself, and what it failed is not handed over.

    `capabilities`: `seeds`; `prefix` with `api: completions`; `ids` where the server returns token ids (vLLM does).
    `stats`: prefill_tokens (prompt tokens computed) and reused_tokens (cached), as the server counts them,
    decode_tokens, requests, retries, failed, seconds, idle_seconds (with no request under way).

    Raises GsiError, from the constructor and from `run`: no server at the url, another model, a refused key or probe,
    a launched server that ends or is not ready in time (with the end of its log), a server that stops answering, and
    FAILURES failing requests in a row. The key comes from the environment variable `settings.api_key_env` and appears
    in no message.
    """

    def __init__(self, settings: Settings, model: str, tokenizer: Any, index: int = 0):
        if not isinstance(settings.url, str):
            settings = settings.model_copy(update={"url": settings.url[index]})
        self.settings, self.tokenizer = settings, tokenizer
        self.model = settings.served_model or model
        self.stop_ids = stored_end_ids(model, tokenizer)
        self.parameters = count_parameters(model)  # of its files, where they are at hand
        self.context: int | None = None  # prompt + response, where the server says it
        self.stats: dict[str, float] = dict.fromkeys(
            ("prefill_tokens", "reused_tokens", "decode_tokens", "requests", "retries", "failed", "seconds", "idle_seconds"), 0
        )
        self._client = Client(settings, self.model, lambda: f"\n{self._server.tail()}" if self._server else "")
        self._sends_ids = self._returns_ids = False
        self._small: dict[str, Any] = {}  # the first request that it answered
        self._server: Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()
        try:
            if settings.launch:
                assert isinstance(settings.url, str)  # one server's
                port = str(urlsplit(settings.url).port or 80)
                self._launch(settings.launch.replace("{port}", port).replace("{index}", str(index)), model)
            self._wait_for(self._probe())
        except BaseException:
            self.close()
            raise
        prefix = {"prefix"} if settings.api == "completions" else set()
        self.capabilities = frozenset({"seeds"} | prefix | ({"ids"} if self._returns_ids else set()))

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight just now."""
        return self._client.throttle.room

    def close(self) -> None:
        """Ends the requests in flight, the connections and a launched server. May be called again."""
        try:
            if not self._loop.is_closed():
                self._wait_for(self._cancel())
                self._wait_for(self._client.close())
                self._wait_for(self._loop.shutdown_default_executor())  # threads that look up addresses
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()
        finally:
            if self._server:
                self._server.close()

    def run(self, work: Workload) -> None:
        started, more = time.perf_counter(), True
        done: queue.SimpleQueue[tuple[Request, Future[Completion]]] = queue.SimpleQueue()
        flight: dict[Future[Completion], float] = {}  # -> when it was handed in
        held = Held()
        try:
            while more or flight or held:
                room = self.concurrency - len(flight)
                if more and room > 0:
                    asked = time.perf_counter()
                    requests = work.take(room, timeout=0.01 if flight else 0.2)
                    self.stats["idle_seconds"] += 0.0 if flight else time.perf_counter() - asked
                    more = requests is not None
                    for request in requests or ():
                        body = self._body(request)
                        if isinstance(body, Completion):
                            work.put(request, body)
                            continue
                        future = asyncio.run_coroutine_threadsafe(self._complete(request, body), self._loop)
                        flight[future] = time.monotonic()
                        future.add_done_callback(lambda f, r=request: done.put((r, f)))  # type: ignore[misc]
                if held and not flight:  # no later request is under way
                    asked = time.monotonic()
                    self._wait_for(self._ask())
                    held.answered(work, asked)
                    continue
                try:
                    request, future = done.get(timeout=0.2) if flight and (room <= 0 or not more) else done.get_nowait()
                except queue.Empty:
                    self._check_server()
                    if not more or room <= 0:
                        more = work.take(0) is not None and more  # hears of a Stop while everything is busy
                    continue
                since, failure = flight.pop(future), future.exception()
                if isinstance(failure, RequestFailed):
                    held.add(request, failure)
                    self.stats["failed"] += 1
                    if held.in_a_row >= FAILURES:
                        raise self._broken(f"{FAILURES} in a row", failure)
                else:
                    work.put(request, future.result())
                    held.answered(work, since)
        except GsiError:
            while not done.empty():  # what has been paid for is not lost
                request, future = done.get()
                if not future.cancelled() and future.exception() is None:
                    work.put(request, future.result())
            raise
        finally:
            self._wait_for(self._cancel())
            self.stats["retries"] = self._client.retries
            self.stats["seconds"] += time.perf_counter() - started

    async def _ask(self) -> None:
        """Raises GsiError for a server that no longer answers what it did at the start."""
        try:
            await self._client.send(self._small, random.Random(0))
        except RequestFailed as e:
            raise self._broken("and now its first small one", e) from None

    def _broken(self, how_many: str, last: RequestFailed) -> GsiError:
        return self._client.error(
            f"fails one request after the other ({how_many}); the last one: it {last}",
            "see its log. What it failed is not stored: the same command draws it again",
        )

    # ----------------------------------------------------------------------------------- one request

    def _body(self, request: Request) -> dict[str, Any] | Completion:
        """What to send, or the completion of a request that cannot run. Raises GsiError where the run cannot go on."""
        prompt, given, s = request.prompt, request.given, request.sampling
        if given.text and self.settings.api == "chat":
            raise GsiError("engine openai: a given prefix cannot be continued with api: chat; use api: completions")
        if not prompt.text and not given.text:
            return Completion("", (), "error", 0, detail="empty prompt")
        ids = None if prompt.ids is None or given.ids is None else prompt.ids + given.ids
        room = s.max_new_tokens
        if ids is not None and self.context and self.settings.api == "completions":
            room = min(room, self.context - len(ids))
            if room <= 0:
                return Completion("", (), "too_long", 0, detail=f"{len(ids)} tokens, the context holds {self.context}")
        body: dict[str, Any] = {"max_tokens": room, "temperature": s.temperature, "top_p": s.top_p, "seed": request.seed}
        if s.stop:
            body["stop"] = list(s.stop)
        return body | self._prompt(prompt.text + given.text, ids)

    async def _complete(self, request: Request, body: dict[str, Any]) -> Completion:
        """What the server makes of it. Raises RequestFailed where that is nothing, GsiError where the run cannot go on."""
        self.stats["requests"] += 1
        try:
            answer = await self._client.send(body, random.Random(request.seed))
        except RequestFailed as e:
            if not e.too_long:
                raise
            return Completion("", (), "too_long", 0, detail=str(e))
        return self._completion(request, answer)

    def _prompt(self, text: str, ids: tuple[int, ...] | None) -> dict[str, Any]:
        if self.settings.api == "chat":
            return {"messages": [{"role": "user", "content": text}]}
        return {"prompt": list(ids) if ids is not None and self._sends_ids else text}

    def _completion(self, request: Request, answer: Answer) -> Completion:
        """The answer in our terms. Tokens that the server does not count are counted here.

        Ids are kept where they stand for the text (a server may strip a model's thinking from the text but not from the ids).
        """
        text, ids, generated = answer.text, None, answer.generated
        if answer.ids is not None:
            decoded = completion(self.tokenizer, request, answer.ids, "stop")
            if decoded.text.strip() == text.strip():
                text, ids = decoded.text, decoded.ids
        if generated is None:
            generated = len(self._encode(text) if answer.ids is None else answer.ids)
        prompt_tokens = None if answer.prompt_tokens is None else max(0, answer.prompt_tokens - request.given.n_tokens)
        self.stats["prefill_tokens"] += (answer.prompt_tokens or 0) - answer.cached
        self.stats["reused_tokens"] += answer.cached
        self.stats["decode_tokens"] += generated
        reason = "stop" if answer.reason in _STOP else answer.reason
        if reason not in ("stop", "length"):
            return Completion(text, ids, "error", generated, prompt_tokens, f"the server ended it with finish_reason {answer.reason!r}")
        return Completion(text, ids, reason, generated, prompt_tokens)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if self.tokenizer is not None else ()

    # ----------------------------------------------------------------------------------- start

    def _launch(self, command: str, model: str) -> None:
        """Starts the server and waits until it answers."""
        if self._wait_for(self._client.ready()):
            raise GsiError(
                f"engine.url: something answers at {self.settings.url} already; end it, or choose another port in engine.url and engine.launch"
            )
        self._server = Server(command, model)
        deadline = time.monotonic() + self.settings.start_timeout
        while True:
            self._check_server()
            if self._wait_for(self._client.ready()):
                return
            if time.monotonic() > deadline:
                raise GsiError(
                    f"engine.launch: the server does not answer at {self.settings.url} after {self.settings.start_timeout:g} s (engine.start_timeout); "
                    + self._server.tail()
                )
            time.sleep(0.1)

    def _check_server(self) -> None:
        if self._server and self._server.ended:
            raise EngineLost(f"engine.launch: the server for {self.model} has ended; {self._server.tail()}")

    async def _probe(self) -> None:
        """Refuses another model; one tiny request finds out whether the server takes and returns token ids."""
        try:
            served = await self._client.models() or []
        except openai.APIConnectionError as e:
            raise self._client.error(
                f"cannot be reached: {self._client.hide(str(e.__cause__ or e))}", "start it, or correct engine.url"
            ) from None
        names = [entry["id"] for entry in served]
        if names and self.model not in names:
            raise self._client.error(
                f"serves {', '.join(names[:5])}, not this model",
                "start it with this model and run the same command again, or set engine.launch to a command with {model} that starts one for every model"
                + ("" if self._server is None else "; if the command gives the model another name, put that into engine.served_model"),
            )
        if names and isinstance(length := served[names.index(self.model)].get("max_model_len"), int):
            self.context = length
        await self._probe_ids()

    async def _probe_ids(self) -> None:
        """Whether the server takes and returns token ids (vLLM returns them on request), by a tiny request per way of asking.

        Raises GsiError when even plain text is refused.
        """
        text = "1 + 1 ="
        ids = tuple(self.tokenizer(text)["input_ids"]) if self.tokenizer is not None else None
        sent = self.settings.api == "completions" and ids is not None
        ways = [(sent, True), (sent, False), (False, False)] if sent else [(False, True), (False, False)]
        for sends_ids, wants_ids in ways:
            self._sends_ids, self._client.extra = sends_ids, {"return_token_ids": True} if wants_ids else {}
            body = {"max_tokens": 1, "temperature": 0.0, "top_p": 1.0, "seed": 1, **self._prompt(text, ids)}
            last = (sends_ids, wants_ids) == ways[-1]
            try:
                answer = await self._client.send(body, random.Random(0))
            except RequestFailed as e:  # a strict server refuses what it does not know
                if last:
                    raise self._client.error(f"fails a first small request: it {e}", "see its log") from None
                continue
            if not sends_ids or answer.prompt_tokens in (None, len(ids or ())):  # else it reads the ids as something else
                self._returns_ids, self._small = answer.ids is not None, body
                return

    # ----------------------------------------------------------------------------------- helpers

    def _wait_for(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _cancel(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

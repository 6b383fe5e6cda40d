"""A real HTTP server on a free local port that speaks the part of the OpenAI protocol that we use, scripted by a function."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server does with one request. Token counts are words unless given; `usage=False` leaves them out."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before anything is sent
    cut: bool = False  # close the connection without an answer
    usage: bool = True
    raw: bytes | None = None  # sent in place of a completion
    half: bool = False  # close the connection in the middle of the answer
    n: int = 1  # choices
    finish: str | None = "stop"
    ids: tuple[int, ...] | None = None  # token ids of the text, sent where they are asked for


Script = Callable[[dict[str, Any], int], "str | Answer"]


class FakeServer:
    """`with FakeServer(lambda body, n: "hello") as server: ... server.url`; n counts the completion requests from 0.

    Records `bodies` (JSON of every completion request), `keys` (their Authorization headers) and `most_at_once`.
    A model that is not in `models` gets a 404, as from real servers.

    Args:
        takes_ids: a prompt may be a list of token ids; else 400.
        knows: options beyond the standard ones; None = any, and others are ignored; else another one gets a 400.
        context: `max_model_len` in the list of models; lists: whether there is a list of models at all.
        port: 0 = any free one.
    """

    def __init__(
        self,
        script: Script = lambda body, n: "OK",
        models: Sequence[str] = ("fake",),
        *,
        takes_ids: bool = True,
        knows: Sequence[str] | None = None,
        context: int | None = None,
        lists: bool = True,
        port: int = 0,
    ):
        self.script, self.models = script, tuple(models)
        self.takes_ids, self.knows, self.context, self.lists = takes_ids, knows, context, lists
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path != "/v1/models" or not server.lists:
                    return self.send(404, {"error": {"message": f"no such path {self.path}"}})
                more = {"max_model_len": server.context} if server.context else {}
                self.send(200, {"object": "list", "data": [{"id": m, "object": "model", **more} for m in server.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path not in ("/v1/chat/completions", "/v1/completions"):
                    return self.send(404, {"error": {"message": f"no such path {self.path}"}})
                if problem := server._bad(body):
                    return self.send(400, {"error": {"message": problem, "code": 400}})
                n = server._enter(body, self.headers.get("Authorization", ""))
                try:
                    answer = server.script(body, n)
                    answer = Answer(answer) if isinstance(answer, str) else answer
                    time.sleep(answer.delay)
                finally:  # before the answer is sent: a client that has it may start its next request at once
                    server._leave()
                if answer.cut:
                    self.close_connection = True
                elif answer.raw is not None:
                    self.send(answer.status, answer.raw, answer.headers)
                elif body["model"] not in server.models:
                    self.send(404, {"error": {"message": f"The model `{body['model']}` does not exist", "code": "model_not_found"}})
                elif answer.status != 200:
                    self.send(answer.status, {"error": {"message": answer.text or f"scripted {answer.status}"}}, answer.headers)
                else:
                    self.send(200, completion(body, n, answer), answer.headers, answer.half)

            def send(self, status: int, content: dict[str, Any] | bytes, headers: dict[str, str] | None = None, half: bool = False) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with contextlib.suppress(ConnectionError):  # the client has hung up
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if half else data)
                self.close_connection |= half

            def log_message(self, *args: Any) -> None:
                pass

        self._server = Listener(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Listens no more. May be called again, but not from a script."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def at_once(self) -> int:
        """Requests being answered now."""
        return self._at_once

    def _bad(self, body: dict[str, Any]) -> str | None:
        """Why a request is refused, whatever the script says."""
        standard = {"model", "prompt", "messages", "max_tokens", "temperature", "top_p", "n", "seed", "stop"}
        if self.knows is not None and (unknown := set(body) - standard - set(self.knows)):
            return f"Unrecognized request argument supplied: {min(unknown)}"
        if isinstance(body.get("prompt"), list) and not self.takes_ids:
            return "prompt: Input should be a valid string"
        return None

    def _enter(self, body: dict[str, Any], key: str) -> int:
        with self._lock:
            self.bodies.append(body)
            self.keys.append(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return len(self.bodies) - 1

    def _leave(self) -> None:
        with self._lock:
            self._at_once -= 1


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted


def completion(body: dict[str, Any], n: int, answer: Answer) -> dict[str, Any]:
    """A completion or chat completion object as servers send it."""
    chat, prompt = "messages" in body, body.get("prompt")
    if chat:
        prompt = " ".join(m["content"] for m in body["messages"])
    prompt_tokens = len(prompt) if isinstance(prompt, list) else len(prompt.split())
    generated = len(answer.ids if answer.ids is not None else answer.text.split())
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": generated, "total_tokens": prompt_tokens + generated}
    content: dict[str, Any] = {"message": {"role": "assistant", "content": answer.text}} if chat else {"text": answer.text}
    if body.get("return_token_ids") and answer.ids is not None:
        content["token_ids"] = list(answer.ids)
    return {
        "id": f"cmpl-{n}",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": i, "finish_reason": answer.finish, **content} for i in range(answer.n)],
        "usage": usage if answer.usage else None,
    }

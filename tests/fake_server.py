"""A real HTTP server on a free local port that speaks the part of the OpenAI protocol that we use, scripted by a function."""

from __future__ import annotations

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


Script = Callable[[dict[str, Any], int], "str | Answer"]


class FakeServer:
    """`with FakeServer(lambda body, n: "hello") as server: ... server.url`; n counts the completion requests from 0.

    Records `bodies` (JSON of every completion request), `keys` (their Authorization headers) and `most_at_once`.
    A model that is not in `models` gets a 404, as from real servers.
    """

    def __init__(self, script: Script = lambda body, n: "OK", models: Sequence[str] = ("fake",)):
        self.script, self.models = script, tuple(models)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path != "/v1/models":
                    return self.send(404, {"error": {"message": f"no such path {self.path}"}})
                self.send(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in server.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    return self.send(404, {"error": {"message": f"no such path {self.path}"}})
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
                    self.send(200, completion(body, n, answer), answer.headers)

            def send(self, status: int, content: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

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


def completion(body: dict[str, Any], n: int, answer: Answer) -> dict[str, Any]:
    """A chat completion object as servers send it."""
    prompt_tokens = sum(len(m["content"].split()) for m in body["messages"])
    generated = len(answer.text.split())
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": generated, "total_tokens": prompt_tokens + generated}
    return {
        "id": f"chatcmpl-{n}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer.text}, "finish_reason": "stop"}],
        "usage": usage if answer.usage else None,
    }

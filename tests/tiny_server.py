"""A small real OpenAI-compatible completions server: a tiny model behind HTTP, decoded by the embedded engine."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler
from typing import Any

from fake_server import Listener

from gsi.engines.transformers import TransformersEngine
from gsi.types import Completion, Query, Request, Sampling, Text


class TinyServer:
    """`with TinyServer(folder, tokenizer) as server: ... server.url`; serves the model under its folder's name.

    `ids=False`: takes text only and returns no token ids, as many servers do.
    """

    def __init__(self, folder: str, tokenizer: Any, ids: bool = True, **engine: Any):
        self.tokenizer, self.ids = tokenizer, ids
        self.engine = TransformersEngine(folder, tokenizer, **engine)
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._answers: dict[int, Future[Completion]] = {}
        self._closing = False
        self._count = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send(200, {"object": "list", "data": [{"id": folder, "max_model_len": server.engine.context}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if server._closing:
                    self.close_connection = True
                else:
                    self.send(*server.answer(body))

            def send(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                with contextlib.suppress(ConnectionError):  # the client has hung up
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = Listener(("127.0.0.1", 0), Handler)
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True),
            threading.Thread(target=self.engine.run, args=(self,), daemon=True),
        ]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> TinyServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; connections are cut. May be called again."""
        if self._closing:
            return
        self._closing = True
        self._http.shutdown()
        self._http.server_close()
        for thread in self._threads:
            thread.join()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and content for one request."""
        prompt = body["prompt"]
        if isinstance(prompt, list) and not self.ids:
            return 400, {"error": {"message": "prompt must be a string"}}
        ids = tuple(prompt) if isinstance(prompt, list) else tuple(self.tokenizer(prompt)["input_ids"])
        if len(ids) + body["max_tokens"] > self.engine.context:
            return 400, {"error": {"message": f"This model's maximum context length is {self.engine.context} tokens."}}
        with self._lock:
            self._count += 1
            key = self._count
            done = self._answers[key] = Future()
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], tuple(body.get("stop", ())))
        self._inbox.put(Request(Query("", "", "", ""), 0, key, Text("", ids), Text("", ()), sampling, body["seed"]))
        c = done.result()
        choice: dict[str, Any] = {"index": 0, "text": c.text, "finish_reason": c.finish_reason}
        if body.get("return_token_ids") and self.ids:
            choice["token_ids"] = list(c.ids or ())
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": c.generated_tokens}}

    # ----------------------------------------------------------------------------------- the engine's workload

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        if self._closing:
            return None
        deadline, taken = time.monotonic() + timeout, []
        while len(taken) < n:
            try:
                taken.append(self._inbox.get(timeout=max(0.0, deadline - time.monotonic())) if not taken else self._inbox.get_nowait())
            except queue.Empty:
                break
        return taken

    def put(self, request: Request, completion: Completion) -> None:
        self._answers.pop(request.attempt).set_result(completion)

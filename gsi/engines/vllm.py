"""Offline vLLM in a process of its own: prefix caching, paged memory, several GPUs.

This process never imports vLLM. It starts `vllm_child.py` with `engine.python`, the interpreter of an environment that
has it, hands it token ids, and gets token ids back as each request finishes. One start serves one model; when the
engine closes, the process is gone and so is what it held of the GPU.

Several copies of a model are several of these engines (gsi/engines/pool.py). Left out: scoring.
"""

from __future__ import annotations

import queue
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsi.config.engines import VllmEngine as Settings
from gsi.engines.replica import Replica, environment
from gsi.engines.text import completion, end_ids, token_ids
from gsi.types import Completion, GsiError, Request, Workload
from gsi.weights import count_parameters


class VllmEngine:
    """Runs requests on `model` through vLLM.

    `stats`: prompt tokens computed and reused, tokens generated, engine steps, seconds in `run`.

    `number`: of several engines this one, which gets its own share of the GPUs; None = it is alone.

    Raises GsiError when vLLM is not there or does not start within `start_timeout`, EngineLost when it dies in the middle of
    a run; the message ends with its log.
    """

    capabilities = frozenset({"prefix", "ids", "seeds", "logprobs"})

    def __init__(self, settings: Settings, model: str, tokenizer: Any, number: int | None = None):
        self.tokenizer = tokenizer
        self.stop_ids, context = describe(model, tokenizer)
        self.stats: dict[str, float] = {
            "prefill_tokens": 0,
            "reused_tokens": 0,
            "decode_tokens": 0,
            "decode_steps": 0,
            "seconds": 0.0,
            "idle_seconds": 0.0,
        }
        # beyond max_rows some wait inside vLLM, so that a finished row is replaced in the very next step
        self._room = settings.max_rows + max(8, settings.max_rows // 4)
        self._next_id = 0
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._folder = Path(tempfile.mkdtemp(prefix="gsi-vllm-"))
        arguments = {
            "model": model,
            "tensor_parallel_size": settings.tensor_parallel,
            "dtype": settings.dtype,
            "max_num_seqs": settings.max_rows,
            "max_model_len": settings.max_length and min(settings.max_length, context),
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_prefix_caching": True,
            "load_format": "safetensors",  # never a pickle
            "disable_log_stats": True,
        } | settings.options
        env = environment(settings.python, number, settings.tensor_parallel)
        self._child = Replica(settings.python or sys.executable, env, arguments, self._folder / "vllm.log", self._inbox)
        try:
            self.context: int = self._child.ready(time.monotonic() + settings.start_timeout)["context"]
        except BaseException:
            self.close()
            raise
        self.parameters = count_parameters(model)

    def run(self, work: Workload) -> None:
        started, more, flight = time.perf_counter(), True, self._child.flight
        if self._child.ended:
            raise self._child.dead()
        try:
            while more or flight:
                room = self._room - len(flight)
                if more and room > 0:
                    asked, busy = time.perf_counter(), bool(flight)
                    taken = work.take(room, timeout=0.0 if busy else 0.2)
                    self.stats["idle_seconds"] += 0.0 if busy else time.perf_counter() - asked
                    more = taken is not None
                    for request in taken or ():
                        self._launch(request, work)
                else:
                    work.take(0)  # hears of a Stop while everything is busy
                if flight:
                    self._collect(work, timeout=0.02 if more and room > 0 else 0.5)
        finally:
            self._child.abandon()
            self.stats["seconds"] += time.perf_counter() - started

    def close(self) -> None:
        self._child.close()
        if not self._child.failed:  # else the log is named in the error
            shutil.rmtree(self._folder, ignore_errors=True)

    # ----------------------------------------------------------------------------------- one request

    def _launch(self, request: Request, work: Workload) -> None:
        prompt = token_ids(request.prompt, "vllm") + token_ids(request.given, "vllm")
        if not prompt:
            work.put(request, Completion("", (), "error", 0, detail="empty prompt"))
            return
        if len(prompt) >= self.context:
            work.put(request, Completion("", (), "too_long", 0, detail=f"{len(prompt)} tokens, the context holds {self.context}"))
            return
        s = request.sampling
        self._next_id += 1
        self._child.flight[self._next_id] = request
        self._child.send(
            {
                "id": self._next_id,
                "prompt": prompt,
                "max_tokens": min(s.max_new_tokens, self.context - len(prompt)),
                "temperature": s.temperature,
                "top_p": s.top_p,
                "seed": request.seed,
                "stop": list(s.stop),
                "stop_ids": sorted(self.stop_ids),
                "logprobs": s.logprobs,
            }
        )

    def _collect(self, work: Workload, timeout: float) -> None:
        """Hands back what has finished; waits for it up to `timeout` seconds."""
        while True:
            try:
                answer = self._inbox.get(timeout=timeout)
            except queue.Empty:
                return
            timeout = 0.0
            if answer is None:
                raise self._child.dead()
            request = self._child.flight.pop(answer["id"], None)
            if request is None:
                continue  # abandoned by an earlier run
            if "error" in answer:
                work.put(request, Completion("", (), "error", 0, detail=answer["error"]))
                continue
            prompt = request.prompt.n_tokens + request.given.n_tokens
            self.stats["prefill_tokens"] += prompt - answer["cached"]
            self.stats["reused_tokens"] += answer["cached"]
            self.stats["decode_tokens"] += len(answer["ids"])
            self.stats["decode_steps"] += answer["steps"] - self._child.steps
            self._child.steps = answer["steps"]
            done = completion(self.tokenizer, request, answer["ids"], answer["finish"])
            if request.sampling.logprobs:
                done = replace(done, logprobs=tuple(answer["logprobs"][: len(done.ids or ())]))
            work.put(request, done)


def describe(model: str, tokenizer: Any) -> tuple[frozenset[int], int]:
    """End tokens (of the model's generation config and of the tokenizer) and longest context. Raises GsiError when there is no such model."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(model)
        try:
            configured = GenerationConfig.from_pretrained(model).eos_token_id
        except OSError:  # it has no generation config of its own
            configured = GenerationConfig.from_model_config(config).eos_token_id
    except (OSError, ValueError, KeyError) as e:
        raise GsiError(f"model: {model!r} cannot be loaded as a causal LM: {e}") from e
    return end_ids(configured, tokenizer), getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31

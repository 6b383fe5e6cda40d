"""The process that runs vLLM for `gsi.engines.vllm`. Started by file name, in an environment that need not have gsi.

It imports nothing of ours and speaks JSON lines. In, first `{"args": {...}}`, the arguments of vLLM's engine, then any of

    {"id", "prompt": [ids], "max_tokens", "temperature", "top_p", "seed", "stop": [texts], "stop_ids": [ids], "logprobs": bool}
    {"abort": [request ids]}

and out, first `{"ready": {"context"}}` or `{"failed": text, "missing": bool}`, then for every request, as soon as it is done,

    {"id", "ids": [generated ids, the end token included], "finish": "stop" | "length", "cached", "steps", "logprobs": [numbers] | null}
    {"id", "error": text}

It ends when its standard input does, that is, also when the parent is gone, however it went.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loaded = threading.Event()
    threading.Thread(target=_read, args=(inbox, loaded), daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        engine = _start(inbox.get()["args"])
    except Exception as e:
        traceback.print_exc()  # before the parent reads the log
        say({"failed": f"{type(e).__name__}: {e}", "missing": isinstance(e, ModuleNotFoundError) and e.name == "vllm"})
        os._exit(1)
    loaded.set()
    say({"ready": {"context": engine.model_config.max_model_len}})
    _serve(engine, inbox, say)
    engine.engine_core.shutdown()  # ends workers on other GPUs and what they share
    os._exit(0)


def _serve(engine: Any, inbox: queue.SimpleQueue[Any], say: Callable[[dict[str, Any]], None]) -> None:
    """vLLM's step loop: requests join between two steps and are answered in the step that finishes them."""
    steps = 0
    while True:
        messages = [] if engine.has_unfinished_requests() else [inbox.get()]  # idle: wait for work
        while not inbox.empty():
            messages.append(inbox.get())
        for message in messages:
            if message is None:
                return
            if "abort" in message:
                engine.abort_request([str(i) for i in message["abort"]])
                continue
            try:
                _add(engine, message)
            except (ValueError, TypeError) as e:  # a request that vLLM refuses is that request's trouble
                say({"id": message["id"], "error": str(e)})
        if not engine.has_unfinished_requests():
            continue
        steps += 1
        for done in engine.step():
            if not done.finished:
                continue
            number, result = int(done.request_id), done.outputs[0]
            if result.finish_reason in ("stop", "length"):
                ids, cached = list(result.token_ids), done.num_cached_tokens or 0
                logprobs = [at[i].logprob for at, i in zip(result.logprobs, ids, strict=True)] if result.logprobs else None
                say({"id": number, "ids": ids, "finish": result.finish_reason, "cached": cached, "steps": steps, "logprobs": logprobs})
            elif result.finish_reason != "abort":
                say({"id": number, "error": f"vLLM ended it with {result.finish_reason!r}"})


def _read(inbox: queue.SimpleQueue[Any], loaded: threading.Event) -> None:
    for line in sys.stdin.buffer:
        inbox.put(json.loads(line))
    inbox.put(None)
    if loaded.is_set():
        time.sleep(15.0)  # for an orderly end between two steps
    os._exit(0)


def _start(args: dict[str, Any]) -> Any:
    """vLLM's engine, tried out. Defaults for a machine without a GPU are filled in; whatever `args` names stays."""
    from vllm import EngineArgs, LLMEngine
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        # without chunks, because its CPU generators cannot be rewound when a seeded request's prompt is split over two steps
        defaults = {"enforce_eager": True, "block_size": 32, "enable_chunked_prefill": False}
        args = defaults | args
        if args.get("dtype", "auto") == "auto":
            args["dtype"] = "float32"
    engine = LLMEngine.from_engine_args(EngineArgs(**args))
    # one token before anybody waits for it: what is wrong with the model's kernels shows here
    _add(engine, {"id": 0, "prompt": [0], "max_tokens": 1, "temperature": 0.0, "top_p": 1.0, "stop": [], "stop_ids": [], "logprobs": False})
    while engine.has_unfinished_requests():
        engine.step()
    return engine


def _add(engine: Any, r: dict[str, Any]) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        temperature=r["temperature"],
        top_p=r["top_p"],
        max_tokens=r["max_tokens"],
        seed=r["seed"] if r["temperature"] else None,
        stop=r["stop"] or None,
        ignore_eos=True,  # the end tokens are among stop_ids, so that they are the parent's and no others
        stop_token_ids=r["stop_ids"],
        logprobs=0 if r["logprobs"] else None,  # of the chosen token only
        detokenize=bool(r["stop"]),  # the parent makes the text
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    engine.add_request(str(r["id"]), {"prompt_token_ids": r["prompt"]}, params)


if __name__ == "__main__":  # vLLM's own worker processes import this file again
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # not through the interpreter's end, which would wait for vLLM's threads

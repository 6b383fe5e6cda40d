"""As much of vLLM's engine as `gsi/engines/vllm_child.py` uses, with a hash for a model, so that both sides of the pipe
are tested where vLLM is not installed. The environment variable FAKE_VLLM makes it misbehave."""

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

from vllm.sampling_params import SamplingParams

print("a library's greeting on standard output")
MODE, _, NUMBER = os.environ.get("FAKE_VLLM", "").partition("@")


@dataclass
class EngineArgs:
    model: str
    tensor_parallel_size: int = 1
    dtype: str = "auto"
    max_num_seqs: int = 256
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool = False
    enable_chunked_prefill: bool = True
    enforce_eager: bool = False
    block_size: int = 16
    load_format: str = "auto"
    disable_log_stats: bool = False


@dataclass
class _Sequence:
    number: str
    prompt: list[int]
    params: SamplingParams
    ids: list[int] = field(default_factory=list)


class LLMEngine:
    def __init__(self, args: EngineArgs):
        if MODE == "hang":
            time.sleep(60)
        self.args, self.sequences, self.steps = args, [], 0
        context = 128 if args.max_model_len is None else args.max_model_len
        self.model_config = SimpleNamespace(max_model_len=context)
        self.engine_core = SimpleNamespace(shutdown=lambda: None)
        if path := os.environ.get("FAKE_VLLM_STARTS"):
            with open(path, "a") as f:
                f.write(json.dumps({"args": vars(args), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}) + "\n")

    @classmethod
    def from_engine_args(cls, args: EngineArgs):
        return cls(args)

    def has_unfinished_requests(self) -> bool:
        return bool(self.sequences)

    def add_request(self, number: str, prompt: dict, params: SamplingParams) -> None:
        if max(prompt["prompt_token_ids"]) >= 97:
            raise ValueError("Token id out of vocabulary")
        self.sequences.append(_Sequence(number, prompt["prompt_token_ids"], params))

    def abort_request(self, numbers: list[str]) -> None:
        self.sequences = [s for s in self.sequences if s.number not in numbers]

    def step(self) -> list:
        self.steps += 1
        if MODE == "kill" and self.steps == int(NUMBER):
            os.kill(os.getpid(), signal.SIGKILL)
        if MODE == "stuck" and self.steps == int(NUMBER):
            time.sleep(600)
        if MODE == "raise" and self.steps == int(NUMBER):
            raise RuntimeError("CUDA error: made up")
        time.sleep(0.001)
        outputs = []
        for s in self.sequences[: self.args.max_num_seqs]:
            key = repr((s.params.seed, s.prompt, len(s.ids)))
            token = hashlib.sha256(key.encode()).digest()[0] % 20  # 0 is the tokenizer's end
            s.ids.append(token)
            reason = "stop" if token in s.params.stop_token_ids else "length" if len(s.ids) == s.params.max_tokens else None
            if reason:
                result = SimpleNamespace(token_ids=s.ids, finish_reason=reason, logprobs=None)
                outputs.append(SimpleNamespace(request_id=s.number, finished=True, outputs=[result], num_cached_tokens=None))
                self.sequences.remove(s)
        return outputs

"""Config of the engines, one section for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gsi.config.section import Section, no_login


class TransformersEngine(Section):
    kind: Literal["transformers"] = "transformers"
    device: str = "auto"  # auto = cuda if there is one, else cpu
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto = bfloat16 on cuda, float32 on cpu
    max_rows: Annotated[int, Field(ge=1)] = 128  # sequences decoded together
    max_batch_tokens: Annotated[int, Field(ge=1)] = 262_144  # bound on rows x longest sequence in the KV cache
    max_length: Annotated[int, Field(ge=2)] | None = None  # prompt + response; null = the model's context
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )
    replicas: Annotated[int, Field(ge=1)] = 1  # copies of the model behind one queue; several: one process and one GPU each

    @model_validator(mode="after")
    def _check(self) -> TransformersEngine:
        if self.replicas > 1 and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"replicas: {self.replicas} copies get a GPU each, and device names one ({self.device}); use device: cuda, or replicas: 1"
            )
        return self


class VllmEngine(Section):
    """Offline vLLM in processes of its own, new ones for every model; their GPU memory is free when it closes."""

    kind: Literal["vllm"] = "vllm"
    python: str | None = None  # interpreter of the environment that has vllm; null = this one
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_rows: Annotated[int, Field(ge=1)] = 256  # sequences decoded together (max_num_seqs)
    max_length: Annotated[int, Field(ge=2)] | None = None  # prompt + response (max_model_len); null = the model's context
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    replicas: Annotated[int, Field(ge=1)] = 1  # copies of the model behind one queue, each a process with tensor_parallel GPUs
    options: dict[str, Any] = Field({})  # further arguments of vLLM's engine, as it spells them
    start_timeout: Annotated[float, Field(gt=0)] = 900.0  # seconds until it must be ready
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )

    @model_validator(mode="after")
    def _check(self) -> VllmEngine:
        if "data_parallel_size" in self.options:
            raise ValueError(f"options: data_parallel_size is `replicas: {self.options['data_parallel_size']}` here, beside `kind`")
        return self


class OpenAIEngine(Section):
    """OpenAI-compatible servers behind one queue. With `launch`, they are started for every model; else they must serve it by themselves."""

    kind: Literal["openai"] = "openai"
    url: str | Annotated[tuple[str, ...], Field(min_length=1)]  # for example http://127.0.0.1:8000/v1; or several
    served_model: str | None = None  # the name the server knows the model by; null = the model's path
    api: Literal["completions", "chat"] = "completions"  # chat cannot continue a given prefix
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Annotated[int, Field(ge=1)] = 64  # requests in flight at most, per server; less after 429 and 503
    retries: Annotated[int, Field(ge=0)] = 5  # with exponential backoff and jitter
    timeout: Annotated[float, Field(gt=0)] = 600.0  # seconds per request
    launch: str | None = None  # command that serves a model at `url`, with {model}, and {port} or {index} where there are several
    start_timeout: Annotated[float, Field(gt=0)] = 900.0  # seconds until a launched server must answer
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )

    @model_validator(mode="after")
    def _check(self) -> OpenAIEngine:
        for url in (self.url,) if isinstance(self.url, str) else self.url:
            no_login(url)
        return self


class ScriptedEngine(Section):
    kind: Literal["scripted"] = "scripted"
    function: str  # `module:function` or `file.py:function`: (request, model path) -> str or Completion
    score: str | None = None  # likewise, to score: (prompt, completion, model path) -> log-probability of every id of the completion
    max_rows: Annotated[int, Field(ge=1)] = 16
    shuffle: int | None = None  # a seed: complete requests in a random order (for tests)
    stall: Annotated[float, Field(ge=0)] = (
        3600.0  # seconds without a token or an answer while requests are open, then the run stops; 0 = never
    )
    entropy: str | None = (
        None  # likewise: (prompt ids, completion ids) -> the entropy at every completion token, for train.on_given: entropy
    )


Single = Annotated[TransformersEngine | VllmEngine | OpenAIEngine | ScriptedEngine, Field(discriminator="kind")]


class RayEngine(Section):
    """Copies of any other engine as actors of a Ray cluster, behind one queue."""

    kind: Literal["ray"] = "ray"
    of: Single  # a kind, or the whole section of that engine
    replicas: Annotated[int, Field(ge=1)] = 1
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = (
        None  # of one replica; null = a CPU, and its GPUs where the cluster has any
    )
    address: str | None = None  # host:port of the head, or auto; null = RAY_ADDRESS, the cluster of this machine, or a new one on it
    may_grow: bool = False  # nodes with these resources may come only when asked for (an autoscaler): wait for them
    options: dict[str, Any] = Field({})  # further options of Ray's actors, as it spells them: runtime_env, label_selector
    stall: Annotated[float, Field(ge=0)] = 0.0  # as for the other engines; never by default, for a cluster may keep its users waiting

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("of"), str):
            return {**data, "of": {"kind": data["of"]}}
        return data


Engine = Annotated[TransformersEngine | VllmEngine | OpenAIEngine | ScriptedEngine | RayEngine, Field(discriminator="kind")]

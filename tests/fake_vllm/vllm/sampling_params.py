from dataclasses import dataclass
from enum import Enum


class RequestOutputKind(Enum):
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None
    stop: list[str] | None
    ignore_eos: bool
    stop_token_ids: list[int]
    logprobs: int | None
    detokenize: bool
    output_kind: RequestOutputKind

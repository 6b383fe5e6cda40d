"""Settings by model family and mode, as the models' makers advise them: `preset: NAME` in a config; any key of your own wins.

Sources: the model cards of Qwen3, SmolLM3 and Gemma 3 and the generation config of Llama 3.x. The cards also advise `top_k`
(Qwen3: 20, Gemma 3: 64), for which there is no key. Where a card says not to decode greedily, evaluation is the mean over
samples (avg@k). Token limits of the thinking modes are below the 32,768 that Qwen advises, for cost: watch `sample/status/truncated`.
"""

from __future__ import annotations

from typing import Any

_THINKING = {
    "sample": {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 16384},
    "evaluate": {"avg_at_k": 4},
    "train": {"max_length": 20480},
}
_CHAT = {"prompt": {"template": "chat", "instruction": "Please reason step by step, and put your final answer within \\boxed{}."}}


def merge(*parts: dict[str, Any]) -> dict[str, Any]:
    """Later parts over earlier ones, section by section."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            result[key] = merge(below if isinstance(below, dict) else {}, value) if isinstance(value, dict) else value
    return result


PRESETS: dict[str, dict[str, Any]] = {
    # base models, the paper's way (arXiv 2411.00750, `Initial_Prompt` of the released code)
    "paper": {
        "prompt": {
            "template": "Below is a math problem, please give a step-by-step answer.\n\n### Question:\n{question}\n\n### Your step-by-step answer:\n"
        },
        "guidance": {"mode": "paper"},
        "sample": {"temperature": 0.7, "max_new_tokens": 1024},
    },
    "qwen3": merge(
        _CHAT,
        {
            "prompt": {"chat_template_kwargs": {"enable_thinking": False}},
            "sample": {"temperature": 0.7, "top_p": 0.8, "max_new_tokens": 2048},
            "train": {"max_length": 4096},
        },
    ),
    # "DO NOT use greedy decoding, as it can lead to performance degradation and endless repetitions"
    "qwen3-thinking": merge(_CHAT, _THINKING, {"prompt": {"thinking": "keep", "chat_template_kwargs": {"enable_thinking": True}}}),
    "smollm3": merge(
        _CHAT,
        {
            "prompt": {"chat_template_kwargs": {"enable_thinking": False}},
            "sample": {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 2048},
            "train": {"max_length": 4096},
        },
    ),
    "smollm3-thinking": merge(_CHAT, _THINKING, {"prompt": {"thinking": "keep", "chat_template_kwargs": {"enable_thinking": True}}}),
    "llama3": merge(_CHAT, {"sample": {"temperature": 0.6, "top_p": 0.9, "max_new_tokens": 2048}, "train": {"max_length": 4096}}),
    "gemma3": merge(_CHAT, {"sample": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 2048}, "train": {"max_length": 4096}}),
}


def fill(data: dict[str, Any], name: str) -> dict[str, Any]:
    """The config's own keys over those of the preset, section by section."""
    return merge(PRESETS[name], data)

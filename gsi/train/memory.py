"""What training needs, by arithmetic: `python -m gsi.train.memory [TOKENS]` prints the table of docs/training.md.

Nothing here is measured. Bytes per parameter: weights, gradients and AdamW's two moments in float32 for what is trained (16), bfloat16 for a
frozen base (2), 4-bit with its constants (0.52; embeddings
stay in bfloat16 and make small models somewhat larger than that). Activations of bfloat16 layers with gated MLPs, nothing kept of attention scores
(flash attention), one micro-batch of TOKENS tokens. Left out: the CUDA context, fragmentation, and buffers of communication; allow 10-20 %.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

GiB = 2**30


@dataclass(frozen=True)
class Shape:
    """A decoder: billions of parameters, layers, widths of the residual stream, of keys and of the MLP."""

    name: str
    parameters: float
    layers: int
    hidden: int
    kv: int
    mlp: int


SHAPES = (
    Shape("Qwen2.5-0.5B", 0.49e9, 24, 896, 128, 4864),
    Shape("Qwen2.5-1.5B", 1.54e9, 28, 1536, 256, 8960),
    Shape("Qwen2.5-3B", 3.09e9, 36, 2048, 256, 11008),
    Shape("Qwen2.5-7B", 7.62e9, 28, 3584, 512, 18944),
    Shape("Qwen2.5-14B", 14.8e9, 48, 5120, 1024, 13824),
    Shape("Qwen2.5-32B", 32.8e9, 64, 5120, 1024, 27648),
)


def adapter(s: Shape, rank: int = 16) -> float:
    """Parameters of a LoRA adapter on all linear layers: rank x (in + out) for q, k, v, o, gate, up, down."""
    pairs = [(s.hidden, s.hidden)] * 2 + [(s.hidden, s.kv)] * 2 + [(s.hidden, s.mlp)] * 3
    return s.layers * rank * sum(a + b for a, b in pairs)


def states(s: Shape, method: str, processes: int = 1) -> float:
    """Bytes per GPU of weights, gradients and optimizer; `processes` share them (fsdp2)."""
    if method == "full":
        return 16 * s.parameters / processes
    return ({"lora": 2, "qlora": 0.52}[method] * s.parameters + 16 * adapter(s)) / processes


def activations(s: Shape, tokens: int, checkpointing: bool) -> float:
    """Bytes kept between forward and backward: all of a layer's, or with checkpointing its input and one layer's at a time."""
    layer = 2 * (7 * s.hidden + 3 * s.kv + 4 * s.mlp) * tokens
    return 2 * s.hidden * tokens * s.layers + layer if checkpointing else layer * s.layers


def tokens_per_second(s: Shape, peak: float, checkpointing: bool, share: float = 0.4) -> float:
    """At `share` of a GPU's peak FLOP/s: 6 FLOPs per parameter and token, 8 where the forward pass is done twice."""
    return share * peak / ((8 if checkpointing else 6) * s.parameters)


def table(tokens: int = 4096) -> str:
    """Markdown: GiB per GPU by method, with gradient checkpointing and without, and tokens per second."""
    lines = [
        "| model | full | full, checkpointing | lora | lora, checkpointing | qlora, checkpointing | full, fsdp2 on 8, checkpointing | tokens/s, A100 | tokens/s, H100 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in SHAPES:
        cells = [
            states(s, method, n) + activations(s, tokens, checkpointing)
            for method, n, checkpointing in (
                ("full", 1, False), ("full", 1, True), ("lora", 1, False), ("lora", 1, True), ("qlora", 1, True), ("full", 8, True),
            )
        ]  # fmt: skip
        speeds = [tokens_per_second(s, peak, True) for peak in (312e12, 989e12)]
        lines.append(
            f"| {s.name} | " + " | ".join(f"{c / GiB:.1f}" for c in cells) + " | " + " | ".join(f"{v:,.0f}" for v in speeds) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(int(sys.argv[1]) if len(sys.argv) > 1 else 4096))

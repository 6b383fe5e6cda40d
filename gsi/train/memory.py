"""What training needs, by arithmetic: `python -m gsi.train.memory [TOKENS]` prints the table of docs/training.md.

Nothing here is measured on a GPU. The formulas are those of `--dry-run` (`dimensions.states`, `dimensions.activations`), for one micro-batch
of TOKENS tokens. Left out: the CUDA context, fragmentation, and buffers of communication; allow 10-20 %.
"""

from __future__ import annotations

import sys

from gsi.config.cost import Dimensions
from gsi.dimensions import activations, parameters, states

GiB = 2**30


def shape(layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, tied: bool = False) -> Dimensions:
    vocabulary = 151_936 if hidden < 3584 else 152_064
    return Dimensions(
        layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, intermediate=intermediate, vocabulary=vocabulary, tied=tied
    )  # fmt: skip


SHAPES = {
    "Qwen2.5-0.5B": shape(24, 896, 14, 2, 4864, tied=True), "Qwen2.5-1.5B": shape(28, 1536, 12, 2, 8960, tied=True),
    "Qwen2.5-3B": shape(36, 2048, 16, 2, 11008, tied=True), "Qwen2.5-7B": shape(28, 3584, 28, 4, 18944),
    "Qwen2.5-14B": shape(48, 5120, 40, 8, 13824), "Qwen2.5-32B": shape(64, 5120, 40, 8, 27648),
}  # fmt: skip


def tokens_per_second(d: Dimensions, peak: float, checkpointing: bool, share: float = 0.4) -> float:
    """At `share` of a GPU's peak FLOP/s: 6 FLOPs per parameter and token, 8 where the forward pass is done twice."""
    return share * peak / ((8 if checkpointing else 6) * parameters(d))


def table(tokens: int = 4096, rank: int = 16) -> str:
    """Markdown: GiB per GPU by method, with gradient checkpointing and without, and tokens per second."""
    lines = [
        "| model | full | full, checkpointing | lora | lora, checkpointing | qlora, checkpointing | full, fsdp2 on 8, checkpointing | tokens/s, A100 | tokens/s, H100 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, d in SHAPES.items():
        cells = [
            states(d, method, rank, n) + tokens * activations(d, method, checkpointing)
            for method, n, checkpointing in (
                ("full", 1, False), ("full", 1, True), ("lora", 1, False), ("lora", 1, True), ("qlora", 1, True), ("full", 8, True),
            )
        ]  # fmt: skip
        speeds = [tokens_per_second(d, peak, True) for peak in (312e12, 989e12)]
        lines.append(f"| {name} | " + " | ".join(f"{c / GiB:.1f}" for c in cells) + " | " + " | ".join(f"{v:,.0f}" for v in speeds) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(int(sys.argv[1]) if len(sys.argv) > 1 else 4096))

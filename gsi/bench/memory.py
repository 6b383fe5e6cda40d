"""`gsi bench memory`: peak memory of sampling 1,000 and 10,000 queries, each in a process of its own, with the embedded engine.

`growth` = the second peak over the first; it is to stay under 1.1. `python -m gsi.bench.memory N` is one such process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gsi.allocation import Fixed
from gsi.bench.workload import PROMPT, Renderer, Tokenizer, Verdicts, build_model
from gsi.ledger import Ledger
from gsi.sampling import Sampler
from gsi.types import Query, Sampling

QUESTION = "How many of the apples that Natalia bought on Monday are left after she gave half of them to her neighbours? " * 2


def memory(few: int = 1_000, many: int = 10_000) -> dict[str, Any]:
    """Peak MiB of both, as the command prints it."""
    small, large = (json.loads(_child(n))["peak_mib"] for n in (few, many))
    return {"queries": [few, many], "peak_mib": [small, large], "growth": round(large / small, 3)}


def _child(queries: int) -> str:
    return subprocess.run(
        [sys.executable, "-m", "gsi.bench.memory", str(queries)], stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout


def main(queries: int) -> None:
    import torch

    from gsi.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = TransformersEngine(str(build_model(folder, layers=1)), Tokenizer(), max_rows=128)
        ledger = Ledger(folder / "ledger.sqlite")
        sampler = Sampler(
            [Query(str(q), "bench", f"{q}: {QUESTION}", str(q)) for q in range(queries)],
            iteration=0, allocation=Fixed(2), guidance=None, renderer=Renderer(), grader=Verdicts(), ledger=ledger,  # type: ignore[arg-type]
            sampling=lambda attempt: Sampling(0.7, 1.0, 6), seed=0, strategy="bench", model="bench",
        )  # fmt: skip
        with sampler:
            engine.run(sampler)
        assert ledger.query("SELECT count(*), sum(prompt_tokens) FROM rollouts")[0] == (2 * queries, 2 * queries * PROMPT)
        ledger.close()
        engine.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    print(json.dumps({"queries": queries, "peak_mib": round(peak / 2 ** (20 if sys.platform == "darwin" else 10), 1)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))

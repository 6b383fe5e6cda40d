"""`gsi run --dry-run`: what a run would do and about what it costs, from the config and the data alone.

Formulas: attempts per query as the allocation bounds them; tokens per attempt estimated by the mean length of the
references (4 characters per token), bounded by sample.max_new_tokens; FLOPs as in `metrics.flops`. No model is loaded.
"""

from __future__ import annotations

from rich.table import Table

from gsi import build, metrics
from gsi.allocation import bounds
from gsi.config import Config
from gsi.progress import table_console
from gsi.weights import count_parameters


def print_plan(config: Config) -> None:
    """Prints the plan. Raises GsiError for whatever would stop the run at its start."""
    data = build.load_data(config)
    data.grader.close()
    s, n = config.sample, len(data.train)
    chars = [len(q.rationale) for q in data.train if q.rationale]
    guess = min(s.max_new_tokens, sum(chars) / len(chars) / 4) if chars else s.max_new_tokens / 2
    low, high = (n * attempts for attempts in bounds(config))
    parameters = count_parameters(config.model)
    prompt = sum(len(q.question) for q in data.train) / max(n, 1) / 4

    console = table_console()
    console.print(f"{config.strategy} on {config.model}, {config.iterations} iterations into {config.output_dir}", markup=False)
    table = Table("stage", "per iteration", "over the run")
    t = config.iterations
    table.add_row("queries", f"{n:,}", "")
    table.add_row("attempts", f"{low:,} to {high:,}", f"{low * t:,} to {high * t:,}")
    table.add_row(
        "generated tokens, estimated", f"{low * guess:,.0f} to {high * guess:,.0f}", f"{low * guess * t:,.0f} to {high * guess * t:,.0f}"
    )
    table.add_row("generated tokens, at most", f"{high * s.max_new_tokens:,}", f"{high * s.max_new_tokens * t:,}")
    table.add_row("training rows, at most", f"{high:,}", "")
    table.add_row("validation queries", f"{len(data.validation):,}", "")
    table.add_row("test queries (at the end)", f"{len(data.test):,}", "")
    if parameters:
        costs = [
            metrics.flops(parameters, int(a * prompt), int(a * guess), int(a * (guess + prompt) * config.train.epochs)) for a in (low, high)
        ]
        table.add_row("FLOPs, estimated", f"{costs[0]:.2g} to {costs[1]:.2g}", f"{costs[0] * t:.2g} to {costs[1] * t:.2g}")
    console.print(table)
    if not parameters:
        console.print("FLOPs: unknown, the model's size cannot be read without loading it", markup=False)
    if data.problems:
        console.print(f"{len(data.problems)} rows would be left out, for example: {data.problems[0]}", markup=False)

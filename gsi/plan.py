"""`gsi run --dry-run`: what a run would do and about what it costs. No model is loaded, and built-in data needs no hub."""

from __future__ import annotations

from rich.table import Table

from gsi import cost, dimensions
from gsi.allocation import bounds
from gsi.config import Config
from gsi.cost import Load, Range
from gsi.outline import Pool, pool
from gsi.progress import table_console
from gsi.strategies import STRATEGIES
from gsi.weights import count_parameters


def print_plan(config: Config, probe: int = 0) -> None:
    """Prints the plan. With `probe` so many training queries are sampled first. Raises GsiError for whatever would stop the run at its start."""
    data = pool(config, must_read=bool(probe))
    d = config.dimensions or dimensions.read(config.model)
    parameters = dimensions.parameters(d) if d else count_parameters(config.model)
    s, n, t = config.sample, data.train, config.iterations
    guess = min(s.max_new_tokens, data.rationale / 4) if data.rationale else s.max_new_tokens / 2
    low, high = (n * attempts for attempts in bounds(config))
    if config.prompt.thinking:
        guess = s.max_new_tokens / 4
    load = Load(
        n, data.validation, data.test, Range(low, high), Range(0.2 * low, high),
        data.question / 4, guess, guess, *_references(config, data), data.unlevelled,
    )  # fmt: skip
    console, outlined, source = table_console(), load, "; --probe 50 samples first."
    if probe:
        from gsi.probe import probe as sample_first

        load, lines = sample_first(config, load, probe)
        source = "." if load is outlined else " and the probe."
        for line in lines:
            console.print(line, markup=False)
    found = cost.estimate(config, load, parameters, d)

    console.print(f"{config.strategy} on {config.model}, {t} iterations into {config.output_dir}", markup=False)
    table = Table("stage", "per iteration", "over the run")
    table.add_row("queries", f"{n:,}", "")
    table.add_row("sample: attempts", _range(load.attempts), _range(load.attempts * t))
    table.add_row("sample: tokens, estimated", _range(load.attempts * load.response), _range(found.generated))
    table.add_row(
        "sample: tokens, at most", f"{load.attempts.high * s.max_new_tokens:,.0f}", f"{load.attempts.high * s.max_new_tokens * t:,.0f}"
    )
    table.add_row("train: rows", _range(load.rows.plus(load.references)), "")
    table.add_row("train: tokens, estimated", _range(found.trained * (1 / t)), _range(found.trained))
    table.add_row("evaluate: validation queries", f"{load.validation:,}", "")
    if config.evaluate.trajectory:
        table.add_row("evaluate: test queries", f"{load.test:,}", "")
    else:
        table.add_row("evaluate: test queries (at the end)", "", f"{load.test:,}")
    if config.strata.draws:
        table.add_row("strata: responses (once)", "", f"{load.unlevelled * config.strata.draws:,}")
    table.add_row("evaluate: tokens, estimated" + (", with strata" if config.strata.draws else ""), "", f"{found.evaluated:,.0f}")
    if found.flops:
        table.add_row("FLOPs, estimated", "", f"{found.flops.low:.2g} to {found.flops.high:.2g}")
    if d and parameters:
        sampling, training = cost.memory(config, d, parameters, load.prompt)
        table.add_row("memory per GPU, sampling", _bytes(sampling), "")
        table.add_row("memory per GPU, training", _bytes(training), "")
    if found.hours and found.sampling_seconds and found.training_seconds:
        table.add_row("time: sampling and evaluation", "", _hours(found.sampling_seconds * (1 / 3600)))
        table.add_row("time: training", "", _hours(found.training_seconds * (1 / 3600)))
        table.add_row("time", _hours(found.hours * (1 / t)), _hours(found.hours))
    if found.money:
        table.add_row(
            f"money, at {config.cost.price_per_gpu_hour:g} per GPU hour", "", f"{found.money.low:,.2f} to {found.money.high:,.2f}"
        )
    console.print(table)
    console.print(f"Formulas: gsi/cost.py. Estimates from the references' length{source}", markup=False)
    if not parameters:
        console.print(
            "FLOPs, memory and time: unknown, the model's size cannot be read without loading it; give `dimensions`", markup=False
        )
    elif not found.hours:
        console.print(
            f"time: unknown; set cost.gpu ({', '.join(cost.GPUS)}), or measured cost.decode_tokens_per_second and cost.train_tokens_per_second",
            markup=False,
        )
    if d and parameters and config.cost.gpu and max(cost.memory(config, d, parameters, load.prompt)) > cost.GPUS[config.cost.gpu][2]:
        console.print(f"warning: that is more memory than a {config.cost.gpu} has ({_bytes(cost.GPUS[config.cost.gpu][2])})", markup=False)
    for line in data.said:
        console.print(line, markup=False)


def _references(config: Config, data: Pool) -> tuple[Range, float]:
    """Rows that an iteration makes from references (gsi/trainset.py), and their tokens; openings are taken to be half of theirs."""
    tokens = (data.rationale or 0.0) / 4
    match config.curate.references:
        case "all":
            return Range(data.references, data.references), tokens
        case "short":
            return Range(0, data.references), tokens
        case "prefixes":
            return Range(0, data.references * STRATEGIES["state_reset"].max_extra), tokens / 2
    return cost.NONE, 0.0


def _range(r: Range) -> str:
    return f"{r.low:,.0f}" if round(r.low) == round(r.high) else f"{r.low:,.0f} to {r.high:,.0f}"


def _bytes(n: float) -> str:
    return f"{n / 1e9:,.1f} GB" if n >= 1e8 else f"{n / 1e6:,.1f} MB"


def _hours(r: Range) -> str:
    unit, factor = ("h", 1.0) if r.high >= 1 else ("min", 60.0)
    low, high = f"{r.low * factor:,.1f}", f"{r.high * factor:,.1f}"
    return f"{low if low == high else f'{low} to {high}'} {unit}"

"""What the tail monitor measured, and where it raised an alarm."""

from __future__ import annotations

from typing import Any

from gsi.report import plots
from gsi.report.parts import Cell, Figure, Table, number
from gsi.report.plots import tip
from gsi.report.read import RunView, dig, finite

# the monitor's names (gsi/monitor.py) as a reader meets them
WORDS = {
    "hard_coverage": "hard questions covered",
    "hard_share": "hard share of rows",
    "effective_queries": "effective questions",
    "distinct": "distinct rationales",
    "length": "length of rows",
    "perplexity": "perplexity of rows",
    "lost": "solved, then lost",
    "gap": "guided minus plain",
}


def figure(run: RunView) -> Figure | None:
    """Every figure of the monitor by iteration: how strong its change for the worse is, against the threshold of an alarm."""
    prefix = "monitor/"
    seen = [line for line in run.metrics if finite(line.get("monitor/alarms")) is not None]
    names = sorted({k[len(prefix) :] for line in seen for k in line if k.startswith(prefix)} - {"alarms"})
    if not names:
        return None
    threshold = finite(dig(run.config, "monitor", "threshold")) or 3.2
    rows: list[dict[str, Any]] = []
    body: list[list[Any]] = []
    for line in seen:
        n = line["iteration"]
        cells: list[Cell] = []
        for name in names:
            z, more = finite(line.get(prefix + name)), dig(run.monitor.get(n), name)
            strength = min(1.0, max(0.0, z or 0.0) / threshold)
            alarm = dig(more, "alarm") is True
            cells.append(Cell(f"{z:,.1f}{' alarm' if alarm else ''}", z, strength) if z is not None else number(None))
            if z is not None:
                was, now = (finite(dig(more, key)) for key in ("was", "now"))
                rows.append({"x": n, "y": WORDS.get(name, name.replace("_", " ")), "v": strength, "label": f"{z:,.1f}{' !' if alarm else ''}", "z": z, "was": was, "now": now, "alarm": "yes" if alarm else "no"})  # fmt: skip
        body.append([f"iteration {n}", *cells, number(line["monitor/alarms"])])
    raised = [(line["iteration"], line["monitor/alarms"]) for line in seen if line["monitor/alarms"]]
    if raised:
        says = "Alarms: " + "; ".join(f"{count:,.0f} in iteration {n}" for n, count in raised) + "."
    else:
        top = max(rows, key=lambda row: row["z"], default=None)
        says = "No alarm." + (
            f" The strongest change for the worse is {top['y']} in iteration {top['x']} (z = {top['z']:.1f})." if top else ""
        )
    note = f"z of the change for the worse against the first iteration or the one before, whichever is larger; an alarm (marked) is one above {threshold:g} whose change is large enough too. docs/curation.md says what each figure is."
    tips = [tip("y", "figure", "nominal"), tip("x", "iteration", "ordinal"), tip("z", "z", format=".2f"), tip("was", "before", format=".4~g"), tip("now", "now", format=".4~g"), tip("alarm", "alarm", "nominal")]  # fmt: skip
    spec = plots.heat(rows, "iteration", "", tips)
    head = "|".join(["", *(WORDS.get(name, name.replace("_", " ")) for name in names), "alarms"])
    return Figure("monitor", "Tail monitor: z of changes for the worse", says, spec, Table("Tail monitor", head, body, note))

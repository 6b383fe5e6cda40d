"""Curation streams from the ledger to Parquet, query by query: the same rows and figures as when everything is looked at together."""

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scripted import HERE, config
from test_gate import ROW, r_ids, score

from gsi import gate, given, mixing, parquet, run, trainset
from gsi.config import load_config
from gsi.controls import under_quota
from gsi.curate import curate, reference_examples
from gsi.distinct import SAME
from gsi.loop import open_run
from gsi.metrics import effective_number
from gsi.metrics_file import write_metrics
from gsi.progress import Reporter
from gsi.seeds import seed_of
from gsi.types import Example, Text


def entropy(prompt_ids, completion_ids):
    return [(i * 7 + len(prompt_ids)) % 5 for i in completion_ids]


def random_rows(queries, renderer, rng):
    """Attempts of two iterations at every query: plain and guided, right and wrong, equal and different."""
    rows = []
    for q in queries:
        prompt = renderer.prompt(q)
        for iteration in range(2):
            for attempt in range(rng.randrange(7)):
                status = rng.choice(["correct", "correct", "correct", "wrong", "truncated"])
                guidance = rng.choice([None, None, "state_reset:0.4", "answer_driven"])
                opening = q.rationale[: rng.randrange(1, len(q.rationale))] if guidance == "state_reset:0.4" else ""
                rest = q.rationale[len(opening) :] + rng.choice(["", "", " So.", f" As the hint says, {rng.randrange(9)}."])
                ids, given_ids = (*rest.encode(), 256), tuple(opening.encode())
                rows.append(
                    replace(
                        ROW, query_id=q.id, task=q.task, level=q.level, iteration=iteration, attempt=attempt, guidance=guidance, given=opening,
                        prompt=prompt.text if guidance != "answer_driven" else "hinted", response=opening + rest, completion=opening + rest,
                        prompt_ids=prompt.ids if guidance != "answer_driven" else (1, 2), response_ids=given_ids + ids, prompt_tokens=len(prompt.ids),
                        given_tokens=len(given_ids), generated_tokens=len(ids), status=status, correct=status == "correct",
                        finish_reason="length" if status == "truncated" else "stop", steps_ok=rng.choice([True, True, False, None]),
                    )
                )  # fmt: skip
    return rows


def together(ctx, n, rows, scores):
    """What curation chooses when all rows are in memory: (training rows, held-out rows, dropped with reasons)."""
    c, queries = ctx.config, {q.id: q for q in ctx.data.train}
    rows = sorted((r for r in rows if r.iteration < n and (c.train.data == "accumulate" or r.iteration == n - 1)), key=key)
    judged = gate.judge([r for r in rows if r.guided and r.accepted(c.accept)], queries, scores, c.curate.gate)
    if c.curate.gate.reliance == "none" and not c.curate.gate.leaks:
        judged = gate.Judgement()
    if c.curate.upweight:
        weights = gate.upweight(rows, scores, c.curate.upweight, c.accept)
        judged.weights = {k: weights.get(k, 1.0) * judged.weights.get(k, 1.0) for k in weights.keys() | judged.weights.keys()}
    if not c.curate.verdicts:
        ended = defaultdict(list)
        for r in rows:
            if r.finish_reason == "stop":
                ended[r.query_id].append(r)
        lots = {q: sorted(of, key=lambda r: seed_of(c.seed, "verdicts", *key(r))) for q, of in ended.items()}
        rows = [r for q, of in lots.items() for r in of[: sum(r.accepted(c.accept) for r in of)]]
    result = curate(
        rows, queries, ctx.renderer, accept=c.accept, control=c.control, cap=c.curate.cap, floor=c.curate.floor,
        distinct=SAME[c.curate.distinct] if c.curate.distinct else None, judge=lambda *_: judged, max_length=c.train.max_length,
        on_given=c.train.on_given is True, seed=c.seed,
    )  # fmt: skip
    examples = result.examples
    if c.train.on_given == "entropy":
        length = lambda q: len(ctx.renderer.prompt(queries[q]).ids)  # noqa: E731
        measure = lambda pairs: [entropy(p.ids, x.ids) for p, x in pairs]  # noqa: E731
        examples, _ = given.unmask(examples, length, c.train.given_share, measure)
    if c.curate.references != "none":
        drawn = [r for r in rows if r.iteration == n - 1]
        of = ctx.data.train if c.curate.references == "all" else under_quota(drawn, ctx.data.train, c.sample.wanted, c.accept)
        examples = examples + reference_examples(of, ctx.renderer, "reference", c.train.max_length).examples
    held = set()
    if c.train.early_stopping:
        held = mixing.hold_out({e.query_id for e in examples}, c.train.early_stopping.share, seed_of(c.seed, "early_stopping", n))
    return (
        [e for e in examples if e.query_id not in held],
        [e for e in examples if e.query_id in held],
        [(d.example, d.reason) for d in result.dropped],
    )


def key(r):
    return r.query_id, r.iteration, r.attempt


def single(examples):
    """As the file holds them: weights in single precision."""
    return [replace(e, weight=pytest.approx(e.weight, rel=1e-6)) for e in examples]


@pytest.mark.parametrize("data", ["replace", "accumulate"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"curate": {"cap": 2, "floor": 3, "distinct": "steps"}, "train": {"early_stopping": {"share": 0.3}}},
        {"curate": {"gate": {"reliance": "choose", "leaks": ["mention", "copy"]}, "upweight": {"by": "likelihood", "power": 1.0}}},
        {"curate": {"gate": {"reliance": "weight"}, "cap": 3, "upweight": {"by": "pass_rate", "power": 0.5}}, "accept": "steps"},
        {"curate": {"verdicts": False}, "control": True},
        {"curate": {"references": "short", "distinct": "text"}, "train": {"on_given": "entropy"}},
    ],
    ids=["plain", "cap and held out", "choose", "weight", "verdicts", "entropy and references"],
)
def test_rows_are_those_that_looking_at_everything_together_gives(tmp_path, settings, data, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 32)  # several row groups
    monkeypatch.setattr(trainset, "BATCH", 8)
    made = config(tmp_path / "run", strategy="state_reset", **{k: v for k, v in settings.items() if k != "train"})
    made["tasks"] = [{"name": "chain", "args": {"seed": 1, "per_level": 3}}]
    made["engine"] |= {"score": f"{HERE.with_name('test_gate.py')}:score", "entropy": f"{__file__}:entropy"}
    made["train"] = {"kind": "scripted", "function": f"{HERE}:train", "data": data} | settings.get("train", {})
    with open_run(load_config(made), reporter=Reporter("quiet")) as ctx:
        rows = random_rows(ctx.data.train, ctx.renderer, random.Random(f"{settings} {data}"))
        ctx.folder.ledger.add(random.Random(0).sample(rows, len(rows)))
        ctx.folder.set_model(0, ctx.base)
        ctx.folder.set_model(1, ctx.base)
        scores = {}
        for r in rows:  # by hand what the gate would have scored
            if r.accepted(ctx.config.accept):
                scores[key(r)] = (sum(score(Text(""), r_ids(r), "")) / len(r.response_ids), -0.1 * r.attempt)
        ctx.folder.ledger.add_scores([(*k, *values, 0) for k, values in scores.items()])
        ctx.folder.mark(2, "sample")
        trainset.curate_rows(ctx, 2)
        expected, held, dropped = together(ctx, 2, rows, scores)
        folder = ctx.folder.iter(2)
        assert parquet.read(folder / "train.parquet") == single(expected)
        assert parquet.read(folder / "dropped.parquet") == single([e for e, _ in dropped])
        assert pq.read_table(folder / "dropped.parquet")["reason"].to_pylist() == [reason for _, reason in dropped]
        assert (folder / "validation.parquet").exists() == bool(held)
        assert not held or parquet.read(folder / "validation.parquet") == single(held)
        assert {p.suffix for p in folder.iterdir()} == {".parquet"}

        line = write_metrics(ctx)[-1]
        queries = {q.id: q for q in ctx.data.train}
        levels = Counter(queries[e.query_id].level for e in expected)
        assert line["train/rows"] == len(expected)
        assert line["train/tokens_per_epoch"] == sum(sum(e.loss_mask) for e in expected)
        assert {k: v for k, v in line.items() if k.startswith("tail/share/")} == {
            f"tail/share/level_{level}": levels[level] / len(expected) for level in levels
        }
        assert line["tail/hard_share"] == sum(levels[level] for level in range(7, 11)) / len(expected)
        assert line["tail/effective_queries"] == effective_number(Counter(e.query_id for e in expected).values())
        assert {k[14:]: v for k, v in line.items() if k.startswith("train/dropped/")} == Counter(reason for _, reason in dropped)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_a_few_queries_one_is_left_to_train_on(tmp_path, count):
    made = config(tmp_path / "run", iterations=1, strategy="state_reset", evaluate={"validation": 0})
    made["tasks"] = [{"name": "chain", "args": {"seed": 1, "per_level": 1, "levels": list(range(1, count + 1))}}]
    made["train"] |= {"early_stopping": {"share": 0.9}}
    run(made, reporter=Reporter("quiet"))
    trained = {e.query_id for e in parquet.read(tmp_path / "run" / "iter_1" / "train.parquet")}
    held_out = tmp_path / "run" / "iter_1" / "validation.parquet"
    assert (len(trained), held_out.exists()) == (1, count > 1)
    assert count == 1 or len({e.query_id for e in parquet.read(held_out)} - trained) == count - 1


def test_trained_tokens_are_summed_row_by_row(tmp_path):
    masks = [(0, 1, 1), (), (1,), (0, 0), (1, 1, 1)]
    parquet.write(tmp_path / "x.parquet", [Example("p", "c", (7,) * len(m), m, "q", 0, 0) for m in masks])
    found = [int(s) for batch in parquet.columns(tmp_path / "x.parquet", ["loss_mask"]) for s in parquet.sums(batch["loss_mask"])]
    assert found == [sum(m) for m in masks]


def test_the_figure_of_scale_shows_what_was_measured(tmp_path):
    from gsi.bench.scale_plot import main, plot

    lines = [json.loads(line) for line in (Path(__file__).parents[1] / "docs" / "scale.jsonl").read_text().splitlines()]
    shown = plot(lines)["hconcat"][0]["layer"][1]["data"]["values"]
    assert {(row["x"], row["y"]) for row in shown if row["s"] == "sample"} == {(line["rollouts"], line["sample_cpu_s"]) for line in lines}
    extrapolated = {"queries": 4_000_000, "extrapolated_from": [1, 2], "sample_cpu_s": 9e9}
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(line) for line in (*lines, extrapolated)))
    assert main([str(tmp_path / "lines.jsonl"), str(tmp_path / "scale.svg")]) == 0
    assert "Processor seconds" in (tmp_path / "scale.svg").read_text()

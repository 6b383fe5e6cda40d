"""`gsi push`: what a run leaves behind as a model and two data sets of the Hugging Face hub, each with a card.

`--to DIR` writes exactly the files that would be uploaded: DIR/model, DIR/train (what the model was trained on) and
DIR/ledger (every attempt and the queries). Nothing of this machine is in them but what the run's config says.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import gsi
from gsi.files import link
from gsi.hub import knock
from gsi.ledger import Ledger, connect
from gsi.report.read import RunView, dig, read_run, results
from gsi.report.words import of_task, samples
from gsi.types import GsiError

PARTS = {"model": "model", "train": "dataset", "ledger": "dataset"}  # folder -> kind of repository
_ROWS = 20_000  # of one row group


def write(run: Path, output: Path, iteration: int | None = None) -> dict[str, Path]:
    """Writes the folders; returns them by part. Raises GsiError where the iteration has no model that was trained, and for a folder that exists."""
    view = read_run(run)
    models = {int(n): name for n, name in (view.state.get("models") or {}).items()}
    kept = {n: name for n, name in models.items() if name.startswith("iter_")}
    if not kept:
        raise GsiError(
            f"{run}: nothing was trained yet, so there is no model to push; train one first, with `gsi run {run / 'config.yaml'}`"
        )
    n = max(models) if iteration is None else iteration
    if n not in kept:
        there = f"kept are {', '.join(map(str, sorted(kept)))}"
        if n and n in models:
            raise GsiError(
                f"{run}: iteration {n} was rolled back to the model that the run began with ({models[n]}), so there is nothing of it to push; "
                f"name another with --iteration: {there} (what the alarms said: `gsi status {run}`)"
            )
        raise GsiError(f"{run}: there is no model of iteration {n}; {there}")
    m = int(kept[n].split("/")[0][5:])  # the iteration that trained it: an earlier one where n was rolled back
    if output.exists():
        raise GsiError(f"{output} exists; name a folder that does not")
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for name in PARTS:
        (part / name).mkdir(parents=True)
    for file in sorted((run / kept[n]).iterdir()):
        if file.name != "README.md":
            link(file, part / "model" / file.name)
    for source, name in ((run / f"iter_{m}" / "train.parquet", "train"), (run / f"iter_{m}" / "dropped.parquet", "dropped")):
        if source.exists():
            link(source, part / "train" / f"{name}.parquet")
    link(run / "config.yaml", part / "model" / "gsi_config.yaml")
    counts = _ledger(run, part / "ledger")
    for name, text in (("model", _model_card(view, n, m)), ("train", _train_card(view, n, m)), ("ledger", _ledger_card(view, counts))):
        (part / name / "README.md").write_text(text, encoding="utf-8")
    part.replace(output)
    return {name: output / name for name in PARTS}


def upload(folders: Mapping[str, Path], repo: str, private: bool = True) -> list[str]:
    """Uploads each folder to a repository of its own: REPO, REPO-train, REPO-ledger. Returns their addresses.

    Raises GsiError where the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        knock()
    except OSError as e:
        raise GsiError(f"the hub cannot be reached: {e}; write the files with --to DIR and upload them from elsewhere") from None
    api, made = HfApi(), []
    for name, folder in folders.items():
        target = repo if name == "model" else f"{repo}-{name}"
        try:
            api.create_repo(target, repo_type=PARTS[name], private=private, exist_ok=True)
            api.upload_folder(repo_id=target, repo_type=PARTS[name], folder_path=folder, commit_message=f"gsi push ({name})")
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as e:
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise GsiError(
                f"{target}: the hub refused: {reason}; log in with `hf auth login` (or set HF_TOKEN with the right to write)"
            ) from None
        made.append(f"{constants.ENDPOINT}/{'datasets/' if PARTS[name] == 'dataset' else ''}{target}")
    return made


# --------------------------------------------------------------------------------------- files


def _ledger(run: Path, folder: Path) -> dict[str, int]:
    """rollouts, evaluations, queries and teacher calls as Parquet; rows by table."""
    Ledger(run / "ledger.sqlite", read_only=True).close()  # says what is wrong with it
    db = connect(run / "ledger.sqlite", read_only=True)
    counts = {}
    try:
        for table in ("rollouts", "evaluations", "queries", "teacher_calls"):
            cursor = db.execute(f"SELECT * FROM {table}")
            names = [c[0] for c in cursor.description]
            kinds = {row[1]: pa.int64() if row[2] == "INTEGER" else pa.string() for row in db.execute(f"PRAGMA table_info({table})")}
            schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
            counts[table] = 0
            with pq.ParquetWriter(folder / f"{table}.parquet", schema) as writer:
                while rows := cursor.fetchmany(_ROWS):
                    columns = list(zip(*rows, strict=True))
                    writer.write_table(pa.table([pa.array(c, t.type) for c, t in zip(columns, schema, strict=True)], schema=schema))
                    counts[table] += len(rows)
            if not counts[table] and table in ("evaluations", "teacher_calls"):
                (folder / f"{table}.parquet").unlink()
                del counts[table]
    finally:
        db.close()
    return counts


# --------------------------------------------------------------------------------------- cards


def _head(**fields: Any) -> str:
    return f"---\n{yaml.safe_dump({k: v for k, v in fields.items() if v}, sort_keys=False, allow_unicode=True)}---\n\n"


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def _data(view: RunView) -> list[str]:
    found = []
    for task in view.config.get("tasks") or []:
        where = task.get("hub") or (f"the file {Path(task['path']).name}" if task.get("path") else "built in")
        found.append(f"{task.get('name')} ({where}, split {task.get('split', 'train')}{', programs' if task.get('programs') else ''})")
    return found


def _results(view: RunView, n: int) -> str:
    lines, how = ["| data | split | model | accuracy | 95 % interval | questions |", "| --- | --- | --- | --- | --- | --- |"], {0}
    for m, split, task, r in results(view):
        if m in (0, n):
            who = "before" if m == 0 else f"iteration {m}"
            lines.append(f"| {task} | {split} | {who} | {r['pass@1']:.1%} | {of_task(r).interval} | {r['n']} |")
            how |= {samples(r)}
            if out := r.get("overlap/left_out"):
                lines[-1] = lines[-1][:-1] + f"({out} left out: also training questions) |"
    if max(how):
        lines.append(f"\nAccuracy is the mean over {max(how)} samples per question (evaluate.avg_at_k), not greedy.")
    return "\n".join(lines) if len(lines) > 2 else "The run has evaluated nothing."


def _cost(view: RunView) -> str:
    clock = view.state.get("clock") or {}
    parts = [
        f"{view.total('sample/tokens'):,.0f} tokens sampled",
        f"{view.total('train/tokens'):,.0f} tokens trained",
        f"{view.total('cost/flops'):.2g} FLOPs",
    ]
    if teacher := view.measured("teacher/tokens"):
        parts.append(f"{teacher:,.0f} tokens of a teacher")
    if clock.get("wall"):
        parts.append(f"{clock['wall'] / 3600:.2f} hours of wall time")
    return ", ".join(parts)


def _reproduce(view: RunView) -> str:
    sha = view.state.get("git_sha")
    made = f"gsi {view.state.get('gsi', gsi.__version__)}" + (f" (commit {sha[:12]})" if sha else "")
    versions = ", ".join(f"{k} {v}" for k, v in (view.state.get("versions") or {}).items())
    config = yaml.safe_dump(view.config, sort_keys=False, allow_unicode=True)
    return f"Made with {made}; {versions}; seed {view.state.get('seed')}.\n\n```\ngsi run gsi_config.yaml output_dir=runs/again\n```\n\n```yaml\n{config}```\n"


def _rolled_back(n: int, m: int) -> str:
    """What to know of iteration n where iteration m trained its model."""
    return "" if m == n else (
        f"\n**Rolled back:** an alarm of the tail monitor spoke against training iteration {n}, so its model is that of iteration {m} again. "
        f"What iteration {n} drew was not trained on.\n"
    )  # fmt: skip


def _solutions(view: RunView, m: int) -> str:
    """Whose solutions iteration m was trained on."""
    references = str(dig(view.config, "curate", "references") or "none")
    whose = "its own verified solutions" if references == "none" else "its own verified solutions and reference solutions"
    return "reference solutions" if m == 0 or references == "all" else whose


def _model_card(view: RunView, n: int, m: int) -> str:
    c, model = view.config, str(view.config.get("model"))
    head = _head(base_model=model if _is_hub_id(model) else None, library_name="transformers", pipeline_tag="text-generation", tags=["guided-self-improvement", view.strategy])  # fmt: skip
    return (
        head
        + f"""# {view.name}, iteration {n}

`{model}` after {m} of {c.get("iterations")} iterations of guided self-improvement (arXiv 2411.00750), strategy **{view.strategy}**: it was trained on
{_solutions(view, m)} to {", ".join(_data(view))}. What counted as right: {c.get("accept")}.
{_rolled_back(n, m)}
## Results

{_results(view, n)}

Iterations are compared on the validation split; test sets are read at the end.

## Cost

{_cost(view)}.

## How to reproduce

{_reproduce(view)}
"""
    )


def _train_card(view: RunView, n: int, m: int) -> str:
    return _head(tags=["guided-self-improvement"], configs=[{"config_name": "default", "data_files": "train.parquet"}]) + f"""# What iteration {m} of {view.name} was trained on
{_rolled_back(n, m)}
`train.parquet`: one row per example, exactly as trained: `prompt`, `completion`, `input_ids`, `loss_mask`, where it comes from (`query_id`,
`iteration`, `attempt`, `guidance`; `source` where it is no attempt of this run) and its `weight`. `dropped.parquet`: right answers that were not
trained on, with the reason. The rows are {_solutions(view, m)} to {", ".join(_data(view))}; strategy {view.strategy}. The questions
have the licences of their data sets.
"""  # fmt: skip


def _ledger_card(view: RunView, counts: Mapping[str, int]) -> str:
    configs = [{"config_name": name, "data_files": f"{name}.parquet"} for name in counts]
    lines = "\n".join(f"- `{name}.parquet`: {count:,} rows" for name, count in counts.items())
    return _head(tags=["guided-self-improvement"], configs=configs) + f"""# Every attempt of {view.name}

{lines}

One row per attempt at a question, right or wrong: what the model read (`prompt`, `given`), what it wrote (`response`), token ids as JSON, the
verdict (`status`, `correct`, `steps_ok`, `extracted`), the seed and what it cost. Questions of {", ".join(_data(view))}, with their own licences;
strategy {view.strategy}.
"""  # fmt: skip

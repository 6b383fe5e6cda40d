"""`gsi evaluate RUN --iteration N --harness`: lm-evaluation-harness on the same model and the same prompts, beside our own results.

RUN/harness/iter_N holds what it needs, and nothing of it needs `gsi`: a task file and the questions of every test set (of the validation
split where there is none), with the prompts as the run rendered them. Decoding is the harness's (model type `hf`), and so is the reading of
answers, or agreement would prove nothing: the filters of its own gsm8k task for numbers, a regular expression for choices, math-verify,
as its minerva_math does it, for everything else. Two things differ therefore: a response that was cut off is read all the same, and the last
number counts wherever it stands. Not for the harness: programs (it has no sandbox) and answers that a function of the user checks.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gsi import build
from gsi.config import Config
from gsi.config.engines import ScriptedEngine
from gsi.files import write_text
from gsi.ledger import Ledger
from gsi.prompts import CLOSE
from gsi.types import GsiError, Rollout

INSTALL = "pip install 'lm-eval[hf]==0.4.13' math-verify"  # the version that the test runs
NUMBER = re.compile(r"-?\d+(\.\d+)?")
SCORING = Path(__file__).with_name("harness_scoring.py")
# answer kind -> the part of the task file that reads and compares answers
READS: dict[str, dict[str, Any]] = {
    "number": {
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True, "ignore_punctuation": False, "regexes_to_ignore": [",", "\\$", "\\.$"]}
        ],
    },
    "choice": {
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "group_select": -1, "regex_pattern": "[Aa]nswer(?: is)?:?\\s*\\(?([A-Z])\\b"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "math": {
        "process_results": "!function harness_scoring.process_results",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """What the harness will be asked."""

    folder: Path
    command: list[str]
    rows: dict[str, list[Rollout]]  # harness task -> our greedy (else first) attempts at its questions
    skipped: dict[str, str]  # task -> why it is not for the harness


def prepare(run: Path, config: Config, n: int, theirs: Sequence[str] = ()) -> Prepared:
    """Writes the task files of an iteration; with `theirs`, tasks of the harness's own are asked instead.

    Raises GsiError where the iteration has no model or no evaluation.
    """
    if isinstance(config.engine, ScriptedEngine):
        raise GsiError("--harness: engine scripted has no model that lm-evaluation-harness could load")
    models = json.loads((run / "run.json").read_text(encoding="utf-8"))["models"]
    if str(n) not in models:
        raise GsiError(f"--harness: there is no model of iteration {n}; kept are {', '.join(sorted(models, key=int)) or 'none'}")
    model = str((run / models[str(n)]).resolve()) if (run / models[str(n)]).is_dir() else models[str(n)]
    tokenizer = build.load_tokenizer(config, model)
    renderer = build.make_renderer(config, tokenizer)
    folder = run / "harness" / f"iter_{n}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    device, dtype = _hardware(config)
    bos = tokenizer.bos_token_id is not None and (renderer.ids_of("a") or ())[:1] == (tokenizer.bos_token_id,)
    args = [f"pretrained={model}", f"dtype={dtype}", f"add_bos_token={bos}"]
    args += [f"think_end_token={CLOSE}"] if renderer.may_think else []
    rows: dict[str, list[Rollout]] = {}
    skipped: dict[str, str] = {}
    if not theirs:
        context = getattr(config.engine, "max_length", None) or _context(model)
        args += [f"max_length={context}"] if context else []
        rows, skipped = _write_tasks(run, config, n, folder, [tokenizer.eos_token, *config.sample.stop], context)
    chat = ["--apply_chat_template"] if theirs and renderer.template == "chat" else []
    command = [
        "lm_eval", "--model", "hf", "--model_args", ",".join(args), "--tasks", ",".join(theirs or rows), *chat,
        *([] if theirs else ["--include_path", str(folder.resolve())]), "--device", device, "--batch_size", "8" if device == "cpu" else "auto",
        "--output_path", str(folder.resolve() / "results"), "--log_samples",
    ]  # fmt: skip
    write_text(folder / "command.sh", shlex.join(command) + "\n")
    return Prepared(folder, command, rows, skipped)


def _write_tasks(
    run: Path, config: Config, n: int, folder: Path, stop: list[str], context: int | None
) -> tuple[dict[str, list[Rollout]], dict[str, str]]:
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        split = next((s for s in ("test", "validation") if ledger.count(n, s)), None)
        if split is None:
            raise GsiError(f"--harness: iteration {n} has not been evaluated; first: gsi evaluate {run} --iteration {n}")
        drawn = [r for r in ledger.rows(n, split) if r.attempt == 0]
        golds = {
            q: (answer, options) for q, answer, options in ledger.query("SELECT id, answer, options FROM queries WHERE split = ?", (split,))
        }
    finally:
        ledger.close()
    own = {t.name for t in (*config.tasks, *config.evaluate.tasks) if t.check}
    programs = {t.name for t in (*config.tasks, *config.evaluate.tasks) if t.programs}
    rows: dict[str, list[Rollout]] = {}
    skipped: dict[str, str] = {}
    limit = config.evaluate.max_new_tokens or config.sample.max_new_tokens
    for task in sorted({r.task for r in drawn}):
        found = [r for r in drawn if r.task == task and r.query_id in golds and r.status != "too_long"]
        if task in programs or task in own or not found:
            skipped[task] = (
                "its responses are programs" if task in programs else "a function of your own checks it" if task in own
                else "the ledger does not hold its answers, or every prompt is too long"
            )  # fmt: skip
            continue
        name = "gsi_" + re.sub(r"\W", "_", task)
        answers = [golds[r.query_id][0] for r in found]
        kind = "choice" if all(golds[r.query_id][1] for r in found) else "number" if all(NUMBER.fullmatch(a) for a in answers) else "math"
        # the harness would cut the beginning of a prompt to make room for the longest response
        room = min(limit, context - max(r.prompt_tokens for r in found)) if context else limit
        sampled = config.evaluate.avg_at_k > 0
        data = folder / f"{name}.jsonl"
        write_text(
            data,
            "".join(json.dumps({"id": r.query_id, "prompt": r.prompt, "answer": a}) + "\n" for r, a in zip(found, answers, strict=True)),
        )
        spec = {
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data.resolve())}}, "test_split": "test",
            "output_type": "generate_until", "doc_to_text": "{{prompt}}", "doc_to_target": "{{answer}}", "num_fewshot": 0,
            "generation_kwargs": {
                "until": stop, "max_gen_toks": room, "do_sample": sampled,
                **({"temperature": config.sample.temperature or 0.7, "top_p": config.sample.top_p} if sampled else {}),
            },
            **READS[kind], "metadata": {"version": 1.0},
        }  # fmt: skip
        text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=1000)
        write_text(
            folder / f"{name}.yaml",
            text.replace("'!function harness_scoring.process_results'", "!function harness_scoring.process_results"),
        )
        rows[name] = found
    if not rows:
        raise GsiError("--harness: nothing here is for the harness: " + "; ".join(f"{t}: {why}" for t, why in skipped.items()))
    shutil.copyfile(SCORING, folder / SCORING.name)
    return rows, skipped


def _hardware(config: Config) -> tuple[str, str]:
    """(device, dtype) that the run's own engine would use here."""
    import torch

    device, asked = getattr(config.engine, "device", "auto"), getattr(config.engine, "dtype", "auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return device, asked if asked != "auto" else "bfloat16" if device.startswith("cuda") else "float32"


def _context(model: str) -> int | None:
    """Tokens that prompt and response may have together."""
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(model)
    return getattr(getattr(found, "text_config", found), "max_position_embeddings", None)


def ask(prepared: Prepared) -> None:
    """Runs the harness; its output goes where ours goes. Raises GsiError where it is not installed or fails."""
    beside = shutil.which("lm_eval", path=str(Path(sys.executable).parent))
    program = beside or shutil.which("lm_eval")
    if program is None:
        raise GsiError(f"lm_eval is not on the PATH; {INSTALL} (in an environment of its own, whose bin is on the PATH, it cannot clash)")
    code = subprocess.run([program, *prepared.command[1:]]).returncode
    if code:
        raise GsiError(f"lm_eval ended with {code}; its output is above, its task files are in {prepared.folder}")


def compare(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Our results and theirs by task, question by question; written to harness.json, and what differs to differences.jsonl."""
    found: dict[str, dict[str, Any]] = {}
    lines = []
    for name, rows in prepared.rows.items():
        files = sorted((prepared.folder / "results").rglob(f"samples_{name}_*.jsonl"))
        if not files:
            raise GsiError(f"{prepared.folder}/results: lm_eval left no samples of {name}; was --log_samples removed?")
        theirs = {s["doc"]["id"]: s for s in map(json.loads, files[-1].read_text(encoding="utf-8").splitlines())}
        if missing := [r.query_id for r in rows if r.query_id not in theirs]:
            raise GsiError(f"{files[-1]}: {len(missing)} questions are missing, for example {missing[0]}")
        right = {q: bool(s["exact_match"]) for q, s in theirs.items()}
        said = {q: s["resps"][0][0] for q, s in theirs.items()}
        found[name] = {
            "n": len(rows),
            "ours": sum(r.correct for r in rows) / len(rows),
            "harness": sum(right[r.query_id] for r in rows) / len(rows),
            "same_verdict": sum(right[r.query_id] == r.correct for r in rows),
            "same_text": sum(said[r.query_id].strip() == r.response.rpartition(CLOSE)[2].strip() for r in rows),
        }
        for r in rows:
            if right[r.query_id] != r.correct:
                theirs_says = {"correct": right[r.query_id], "response": said[r.query_id]}
                ours_says = {"status": r.status, "extracted": r.extracted, "response": r.response}
                lines.append(
                    json.dumps({"task": name, "id": r.query_id, "ours": ours_says, "harness": theirs_says}, ensure_ascii=False) + "\n"
                )
    write_text(prepared.folder / "harness.json", json.dumps(found, indent=1))
    write_text(prepared.folder / "differences.jsonl", "".join(lines))
    return found


def evaluate(run: Path, config: Config, n: int, theirs: Sequence[str] = (), only_print: bool = False) -> None:
    """The command: prints what the harness is asked, asks it, prints both results."""
    from rich.table import Table

    from gsi.progress import table_console

    prepared = prepare(run, config, n, theirs)
    print(shlex.join(prepared.command), flush=True)
    for task, why in prepared.skipped.items():
        print(f"{task}: left out, {why}", flush=True)
    if only_print:
        return
    ask(prepared)
    if theirs:
        return
    table = Table("task", "questions", "ours", "harness", "same verdict", "same text")
    for name, r in compare(prepared).items():
        table.add_row(name, f"{r['n']:,}", f"{r['ours']:.1%}", f"{r['harness']:.1%}", f"{r['same_verdict']:,}", f"{r['same_text']:,}")
    table_console().print(table)
    print(f"what differs, question by question: {prepared.folder}/differences.jsonl")

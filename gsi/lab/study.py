"""`gsi study STUDY.yaml`: a matrix of models, tasks, seeds and arms, every cell a `gsi run` of its own; resumable, with compact results.

    name: screen
    output_dir: runs/screen                 # the run folders
    results: studies/screen.jsonl           # one line per finished cell; what the findings are made from
    seeds: [1, 2, 3]
    models: {llama: "lab:dag:{seed}"}
    tasks:  {dag: {tasks: [{name: dag, args: {seed: "{seed}", per_level: 60}}]}}      # a patch of the config
    strategies: [vanilla, state_reset]      # an arm for each; `controls: true` adds the control arms
    arms: {brute_16: {strategy: brute_force, sample: {max_extra: 16}}}                # own arms, patches too
    config: {...}                           # what all cells share

Texts may hold {seed}, {task}, {fresh} (the seed of data that no cell trains on) and {run:ARM} (the run folder of another arm of
the same model, task and seed). A finished cell is never run again; one that failed is reported while the others finish.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from gsi import build
from gsi.config import ConfigError, Section, explain, load_config
from gsi.lab.collect import Record, collect
from gsi.runfolder import write_text
from gsi.strategies import CONTROLS, STRATEGIES
from gsi.types import GsiError

SOURCE = Path(__file__).parent.parent
FRESH = 1_000_000  # added to a seed: data that no cell trains on


class Contrast(Section):
    """A difference between two arms that is named before any seed is run."""

    a: str
    b: str  # the difference is a - b; `best` of several: names joined by `|`, the one with the highest mean
    task: str | None = None  # null = the first
    model: str | None = None  # null = the first
    measure: Literal["hard_accuracy", "easy_accuracy", "accuracy"] = "hard_accuracy"
    margin: float = 0.0  # supported where the lower 95 % bound is above this (-0.02: not worse by more than two points)


class Study(Section):
    name: str
    output_dir: str
    results: str
    seeds: Annotated[list[int], Field(min_length=1)]
    models: Annotated[dict[str, str | dict[str, Any]], Field(min_length=1)]  # a model, or a patch of the config with `model`
    tasks: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    strategies: list[str] = Field([])
    controls: bool = False
    guided: str = "state_reset"  # the arm that matched controls are matched to
    arms: dict[str, dict[str, Any]] = Field({})
    config: dict[str, Any] = Field({})
    draws: Annotated[int, Field(ge=0)] = 0  # of the initial model per training query, used for strata only; 0 = none
    equal_tokens: list[str] = Field([])  # arms whose last training set is cut to equal trained tokens and steps, and trained again
    contrasts: Annotated[list[Contrast], Field(max_length=5)] = Field([])
    exclusions: list[str] = Field([])  # in words, stated beforehand
    minutes: dict[str, float] = Field({})  # assumed per cell by arm, `default` for the others; measured ones count once there are any


@dataclass(frozen=True)
class Cell:
    """One run of the matrix, or one of its helpers: `base` (a lab model), `draws` (strata), `equal:ARM`."""

    model: str
    task: str
    seed: int
    arm: str
    config: dict[str, Any] = field(compare=False, hash=False)
    needs: tuple[str, ...] = ()  # keys of cells that have to be done first

    @property
    def key(self) -> str:
        return f"{self.model}/{self.task}/s{self.seed}/{self.arm}"

    @property
    def mark(self) -> str:
        """Identifies the config, wherever its files lie."""
        text = json.dumps({k: v for k, v in self.config.items() if k != "output_dir"}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_study(path: str | Path) -> tuple[Study, str]:
    """The study and the hash of its file. Raises ConfigError for what could not run: all cells are checked, nothing is started."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from None
    try:
        study = Study.model_validate(data)
    except ValidationError as e:
        raise ConfigError("\n".join(f"{path}: {explain(err, Study)}" for err in e.errors())) from None
    known = arms(study)
    if not known:
        raise ConfigError(f"{path}: no arms; name some under strategies or arms")
    for i, contrast in enumerate(study.contrasts):
        for name in (*contrast.a.split("|"), *contrast.b.split("|")):
            if name not in known:
                raise ConfigError(f"{path}: contrasts[{i}]: unknown arm {name!r}; there are {', '.join(known)}")
    for name in study.equal_tokens:
        if name not in known:
            raise ConfigError(f"{path}: equal_tokens: unknown arm {name!r}; there are {', '.join(known)}")
    return study, hashlib.sha256(text.encode()).hexdigest()[:12]


def arms(study: Study) -> dict[str, dict[str, Any]]:
    """Arm name -> patch of the config. Raises ConfigError for an unknown strategy."""
    found: dict[str, dict[str, Any]] = {}
    for name in [*study.strategies, *(CONTROLS if study.controls else ())]:
        if name not in STRATEGIES:
            raise ConfigError(f"strategies: unknown {name!r}; there are {', '.join(STRATEGIES)}")
        chosen = STRATEGIES[name]
        patch: dict[str, Any] = {"strategy": name}
        if chosen.match:
            patch["curate"] = {"like": f"{{run:{study.guided}}}"}
        if not chosen.verdicts:
            patch["control"] = True
        if chosen.allocation == "none":
            patch["iterations"] = 1  # every iteration would train the base on the same rows
        found[name] = patch
    return found | study.arms


def cells(study: Study, path: str = "study") -> list[Cell]:
    """Every cell in the order it is run, each with a config that was checked. Raises ConfigError that names the cell."""
    found: list[Cell] = []
    known = arms(study)
    for seed in study.seeds:
        for model, name in study.models.items():
            for task, patch in study.tasks.items():
                place = f"{model}/{task}/s{seed}"
                folder = Path(study.output_dir) / model / task / f"s{seed}"
                fill = filler({"seed": seed, "fresh": seed + FRESH, "task": task} | {f"run:{a}": str(folder / a) for a in known})
                entry = {"model": name} if isinstance(name, str) else name
                if not isinstance(entry.get("model"), str):
                    raise ConfigError(f"{path}: models.{model}: no `model` in it")
                base = fill(entry["model"])
                patch = _merge(entry, patch)
                first: tuple[str, ...] = ()
                if base.startswith("lab:"):
                    first = (f"base/{base}",)
                    if not any(c.key == first[0] for c in found):
                        found.append(_Base(model, task, seed, "base", {"model": base}))
                for arm, own in known.items():
                    config = _merge(_merge(_merge({"seed": seed}, study.config), patch), own)
                    config = fill(config) | {"model": base, "output_dir": str(folder / arm)}
                    try:
                        load_config(config)
                    except ConfigError as e:
                        raise ConfigError(f"{path}: {place}/{arm}: {e}") from None
                    like = (config.get("curate") or {}).get("like")
                    needs = tuple(f"{place}/{a}" for a in known if like == str(folder / a))
                    if like and not needs:
                        raise ConfigError(
                            f"{path}: {place}/{arm}: curate.like: {like} is the folder of no arm of this study; add the arm {study.guided}"
                        )
                    found.append(Cell(model, task, seed, arm, config, first + needs))
                if study.draws:
                    config = _merge({"seed": seed}, _merge(study.config, patch)) | {"strategy": "vanilla", "iterations": 1}
                    config["sample"] = {**config.get("sample", {}), "k": study.draws}
                    config = fill(config) | {"model": base, "output_dir": str(folder / "draws")}
                    found.append(Cell(model, task, seed, "draws", config, first))
                for arm in study.equal_tokens:
                    source = next(c for c in found if c.key == f"{place}/{arm}")
                    needs = tuple(f"{place}/{a}" for a in study.equal_tokens)
                    found.append(
                        Cell(model, task, seed, f"equal:{arm}", source.config | {"output_dir": str(folder / f"equal-{arm}")}, needs)
                    )
    return found


@dataclass(frozen=True)
class _Base(Cell):
    @property
    def key(self) -> str:
        return f"base/{self.config['model']}"


def filler(values: dict[str, Any]) -> Callable[[Any], Any]:
    """Replaces {name} in every text of a nested value; a text that is nothing but one placeholder becomes the value itself."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v) for v in value]
        if not isinstance(value, str):
            return value
        for name, content in values.items():
            if value == f"{{{name}}}":
                return content
            value = value.replace(f"{{{name}}}", str(content))
        return value

    return fill


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        result[key] = _merge(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


# --------------------------------------------------------------------------------------- running


def code_mark() -> str:
    """Identifies the code that made a result: a hash of all source files of `gsi`."""
    hashed = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        hashed.update(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:12]


class Results:
    """The JSONL file of finished cells, rewritten whole, sorted by key."""

    def __init__(self, path: str | Path):
        self.path, self._lock = Path(path), threading.Lock()
        self.records: dict[str, Record] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self.records[record["key"]] = record

    def add(self, record: Record) -> None:
        with self._lock:
            self.records[record["key"]] = record
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, "".join(json.dumps(self.records[k], separators=(",", ":")) + "\n" for k in sorted(self.records)))


def check(study: Study, todo: list[Cell], path: str) -> None:
    """Loads the models' names and the data of every arm, for the first seed. Raises ConfigError that names the cell."""
    for cell in todo:
        try:
            if isinstance(cell, _Base):
                from gsi.lab.base import parse

                parse(cell.config["model"])
            elif cell.seed == study.seeds[0] and not cell.arm.startswith("equal:"):
                build.load_data(load_config(cell.config)).grader.close()
        except GsiError as e:
            raise ConfigError(f"{path}: {cell.key}: {e}") from None


def run_study(path: str, jobs: int, say: Callable[[str], None]) -> int:
    """Runs what is missing with `jobs` processes of one thread each. Returns the number of cells that failed.

    Raises ConfigError for a study that cannot run, GsiError where a result on file belongs to another config.
    """
    study, mark = load_study(path)
    todo, results = cells(study, path), Results(study.results)
    done = {c.key for c in todo if c.key in results.records}
    for cell in todo:
        if cell.key in done and results.records[cell.key]["mark"] != cell.mark:
            raise GsiError(
                f"{study.results}: the result of {cell.key} was made with another config; remove its line, or name another file under `results`"
            )
    code = code_mark()
    if others := sum(results.records[key].get("code") != code for key in done):
        say(
            f"{others} of the results in {study.results} were made by another version of gsi; they count as done (the findings name the versions)"
        )
    check(study, todo, path)
    left = [c for c in todo if c.key not in done and not (isinstance(c, _Base) and all(o.key in done for o in todo if c.key in o.needs))]
    say(estimate(study, todo, results, jobs))
    say(f"study {study.name} ({path}, hash {mark}): {len(left)} of {len(todo)} cells to run")
    failed: dict[str, str] = {}
    running: dict[Future[Record | None], Cell] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while left or running:
                for cell in list(left):
                    if missing := next((n for n in cell.needs if n in failed), None):
                        failed[cell.key] = f"needs {missing}, which failed"
                        left.remove(cell)
                    elif len(running) < jobs and all(n in done for n in cell.needs):
                        left.remove(cell)
                        running[pool.submit(_run, cell, study, results, stop)] = cell
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    cell = running.pop(future)
                    try:
                        record = future.result()
                    except GsiError as e:
                        failed[cell.key] = str(e)
                        say(f"failed: {cell.key}: {e}")
                        continue
                    done.add(cell.key)
                    if record is not None:
                        results.add(record | {"study": mark, "code": code})
                        say(f"{len(done)}/{len(todo)} {cell.key}: {record['seconds']:.0f} s")
        except BaseException:
            stop.set()  # the children end; what they finished is kept, and the same command goes on
            raise
    for key, why in failed.items():
        say(f"failed: {key}: {why.splitlines()[-1] if why else ''}")
    return len(failed)


def _run(cell: Cell, study: Study, results: Results, stop: threading.Event) -> Record | None:
    started = time.monotonic()
    if isinstance(cell, _Base):
        _child(["-c", "import sys; from gsi.lab.base import resolve; resolve(sys.argv[1])", cell.config["model"]], None, stop)
        return None
    config = cell.config
    if cell.arm.startswith("equal:"):
        config = equalised(cell, study, results)
    folder = Path(config["output_dir"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = folder.with_name(folder.name + ".yaml")
    source.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = ["profile"] if cell.arm == "draws" else []
    _child(["-m", "gsi.lab.cell", str(source), *command], folder.with_name(folder.name + ".log"), stop)
    record = collect(folder, load_config(config), draws=cell.arm == "draws")
    return {"key": cell.key, "mark": cell.mark, "seconds": round(time.monotonic() - started, 1)} | record


def _child(arguments: list[str], log: Path | None, stop: threading.Event) -> None:
    """A Python process of one thread. Raises GsiError with the end of what it printed; ends it when `stop` is set."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    reader = ThreadPoolExecutor(1).submit(lambda: process.stdout.read() if process.stdout else "")
    try:
        while process.poll() is None and not stop.wait(0.2):
            pass
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    printed = reader.result()
    if log is not None:
        log.write_text(printed, encoding="utf-8")
    if process.returncode != 0:
        raise GsiError(f"ended with code {process.returncode}:\n{printed[-2000:].strip()}" if not stop.is_set() else "interrupted")


def equalised(cell: Cell, study: Study, results: Results) -> dict[str, Any]:
    """The config that trains the arm's last rows again, cut to the fewest trained tokens of all `equal_tokens` arms, in equal steps."""
    place = cell.key.rpartition("/")[0]
    last = {arm: results.records[f"{place}/{arm}"]["iterations"][-1]["rows"] for arm in study.equal_tokens}
    fewest = min(rows["tokens"] for rows in last.values())
    own = last[cell.arm.partition(":")[2]]
    count = sum(own["levels"].values()) * fewest / own["tokens"]  # rows that will be left, about
    steps = min(rows["steps"] * fewest / rows["tokens"] for rows in last.values())
    train = dict(cell.config.get("train", {}))
    train["batch_size"] = max(1, round(count * train.get("epochs", 1) / steps))
    train["micro_batch_size"] = train["batch_size"]
    source = str(Path(cell.config["output_dir"]).parent / cell.arm.partition(":")[2])
    curate = {"rows_of": source, "tokens": fewest}
    return cell.config | {
        "strategy": "vanilla",
        "iterations": 1,
        "allocation": {"kind": "none"},
        "curate": curate,
        "train": train,
        "control": True,
    }


def estimate(study: Study, todo: list[Cell], results: Results, jobs: int) -> str:
    """Cells, core-hours and wall time, from cells that were measured (same arm first), else from the study's own `minutes`."""
    measured: dict[str, list[float]] = {}
    for key, record in results.records.items():
        measured.setdefault(key.rpartition("/")[2], []).append(record["seconds"])
    everything = [s for values in measured.values() for s in values]
    total, guessed = 0.0, 0
    for cell in todo:
        if cell.key in results.records:
            continue
        if cell.arm in measured:
            total += sum(measured[cell.arm]) / len(measured[cell.arm])
        else:
            guessed += 1
            default = sum(everything) / len(everything) / 60 if everything else 3.0
            total += 60 * study.minutes.get(cell.arm.partition(":")[0], study.minutes.get("default", default))
    note = f", {guessed} of the cells assumed, not measured" if guessed else ""
    return (
        f"{len(todo)} cells, {sum(c.key in results.records for c in todo)} done; the others: about {total / 3600:.1f} core-hours, "
        f"{total / 3600 / jobs:.1f} hours with {jobs} processes{note}"
    )

"""`gsi study STUDY.yaml`: runs the cells of a study (`matrix.py`), with compact results; resumable.

A finished cell is never run again; one that failed is reported while the others finish, and the next call runs only it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from gsi.build import is_path, load_tokenizer
from gsi.config import ConfigError, load_config
from gsi.dimensions import parameters, read
from gsi.files import write_text
from gsi.lab.collect import Record, collect
from gsi.lab.matrix import Base, Cell, Study, cells, load_study, shared
from gsi.queries import load_data
from gsi.types import GsiError

SOURCE = Path(__file__).parent.parent
BUILD = ("-c", "import sys; from gsi.lab.base import resolve; resolve(sys.argv[1])")  # + the name of a model


def code_mark() -> str:
    """Identifies the code that made a result: a hash of all source files of `gsi`."""
    hashed = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        hashed.update(path.relative_to(SOURCE).as_posix().encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:12]


class Results:
    """The JSONL file of finished cells, rewritten whole, sorted by key. Several commands may add to one file, as studies that share results do."""

    def __init__(self, path: str | Path):
        self.path, self._lock = Path(path), threading.Lock()
        self.records: dict[str, Record] = {}
        self._read()

    def _read(self) -> None:
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self.records[record["key"]] = record

    def add(self, record: Record) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(self.path.with_name(f".{self.path.name}.lock")):
            self._read()  # what another command added meanwhile
            self.records[record["key"]] = record
            write_text(self.path, "".join(json.dumps(self.records[k], separators=(",", ":")) + "\n" for k in sorted(self.records)))


def check(study: Study, todo: list[Cell], path: str, ask_hub: bool = True) -> None:
    """Loads the models' names and the data of every arm, for the first seed. Raises ConfigError that names the cell.

    Args:
        ask_hub: whether the tokenizers of models that are no folder are loaded, which may fetch them.
    """
    models: dict[str, Cell] = {}
    if study.teacher and not study.teacher.model.startswith("lab:dag-strong"):
        raise ConfigError(f"{path}: teacher.model: {study.teacher.model!r} cannot teach; name lab:dag-strong:SEED")
    for cell in todo:
        with _named(cell, path):
            if isinstance(cell, Base):
                from gsi.lab.base import parse

                parse(cell.config["model"])
            elif cell.seed == study.seeds[0] and ":" not in cell.arm:
                load_data(load_config(cell.config)).grader.close()
                models.setdefault(cell.config["model"], cell)
    for model, cell in models.items():  # last: the one check that may take the network
        if not model.startswith("lab:") and (ask_hub or is_path(model)):
            with _named(cell, path):
                load_tokenizer(load_config(cell.config), model)


@contextmanager
def _named(cell: Cell, path: str) -> Iterator[None]:
    """What cannot run, as a ConfigError that names the cell."""
    try:
        yield
    except GsiError as e:
        raise ConfigError(f"{path}: {cell.key}: {e}") from None


def run_study(path: str, jobs: int, say: Callable[[str], None]) -> int:
    """Runs what is missing with `jobs` processes of one thread each. Returns the number of cells that failed.

    Raises ConfigError for a study that cannot run, GsiError where a result on file belongs to another config.
    """
    study, mark = load_study(path)
    if study.closed:
        say(f"study {study.name} ({path}, hash {mark}) is closed: {study.closed}; nothing is run")
        return 0
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
    left = missing(todo, results)
    say(estimate(study, todo, results, jobs))
    say(f"study {study.name} ({path}, hash {mark}): {len(left)} of {len(todo)} cells to run")
    failed: dict[str, str] = {}
    running: dict[Future[Record | None], Cell] = {}
    stop = threading.Event()
    asks = any(cell.config.get("teacher") for cell in left)
    with _teacher(study) if asks else nullcontext(), ThreadPoolExecutor(jobs) as pool:
        try:
            while left or running:
                for cell in list(left):
                    if lost := next((n for n in cell.needs if n in failed), None):
                        failed[cell.key] = f"needs {lost}, which failed"
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
                        if other := _other_base(cell, record, results):
                            say(f"warning: {cell.key} began with another model than {other}: their difference is not one of arms")
                        results.add(record | {"study": mark, "code": code})
                        say(f"{len(done)}/{len(todo)} {cell.key}: {record['seconds']:.0f} s")
        except BaseException:
            stop.set()  # the children end; what they finished is kept, and the same command goes on
            raise
    for key, why in failed.items():
        say(f"failed: {key}: {why.splitlines()[-1] if why else ''}")
    return len(failed)


def _teacher(study: Study) -> AbstractContextManager[None]:
    from gsi.lab.teacher import served

    if study.teacher is None:
        return nullcontext()  # a teacher of the config's own
    _child([*BUILD, study.teacher.model], None, threading.Event(), gpu=False)  # may take longer than a server may take to start
    return served(study.teacher.model, study.teacher.port)


def _run(cell: Cell, study: Study, results: Results, stop: threading.Event) -> Record | None:
    started = time.monotonic()
    if isinstance(cell, Base):
        _child([*BUILD, cell.config["model"]], None, stop, gpu=False)
        return None
    config = cell.config
    if cell.of_model and cell.needs and not cell.needs[0].startswith("base/") and not Path(config["model"]).exists():
        raise GsiError(
            f"{config['model']} is not there any more; remove the line of {cell.needs[0]} from {study.results} to have it trained again"
        )
    if cell.arm.startswith("equal:"):
        config = equalised(cell, study, results)
    if study.teacher and config.get("teacher"):
        config = config | {"teacher": {"parameters": _size(study.teacher.model)} | config["teacher"]}  # so that its tokens are in the FLOPs
    folder = Path(config["output_dir"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = folder.with_name(folder.name + ".yaml")
    source.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = ["profile"] if cell.draws_only else []
    gpu = not str(shared(study, cell.model, cell.task)["model"]).startswith("lab:")
    _child(["-m", "gsi.lab.cell", str(source), *command], folder.with_name(folder.name + ".log"), stop, gpu)
    record = collect(folder, load_config(config), criterion(cell, study), draws=cell.draws_only)
    return {"key": cell.key, "mark": cell.mark, "seconds": round(time.monotonic() - started, 1)} | record


def _size(model: str) -> int:
    """Parameters of a base of the lab that exists already."""
    from gsi.lab.base import resolve

    found = read(str(resolve(model)))
    assert found is not None, "bases are models of a known kind"
    return parameters(found)


def _other_base(cell: Cell, record: Record, results: Results) -> str | None:
    """The key of an arm of the same seed whose initial model solves other questions: bases made on another kind of processor are other models."""
    place, ours = cell.key.rpartition("/")[0] + "/", {} if cell.of_model else _begun(record)
    for key, other in results.records.items():
        of_model = key.removeprefix(place).startswith(("pass:", "again:"))  # begin with trained models
        theirs = _begun(other) if key.startswith(place) and not of_model else {}
        if any(theirs[name] != ours[name] for name in ours.keys() & theirs.keys()):
            return key
    return None


def _begun(record: Record) -> dict[tuple[str, str], str]:
    """(test set, its number of questions) -> which of them the initial model solves."""
    first = record["iterations"][0]["tests"] if record.get("iterations") else {}
    return {(name, found["items"].partition(":")[0]): found["items"] for name, found in first.items()}


def criterion(cell: Cell, study: Study) -> str:
    """What counts as right in the results (`accept`): the study's, model's or task's, whatever an arm of its own accepts to train on."""
    return str(shared(study, cell.model, cell.task).get("accept", "answer"))


def environment(gpu: bool) -> dict[str, str]:
    """Of a cell. The lab's own models stay on the CPU, in float32, as their trainer does: samples of a GPU in bfloat16 would not compare."""
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})


def _child(arguments: list[str], log: Path | None, stop: threading.Event, gpu: bool) -> None:
    """A Python process of one thread. Raises GsiError with the end of what it printed; ends it when `stop` is set."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(gpu),
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


def missing(todo: list[Cell], results: Results) -> list[Cell]:
    """The cells without a result, but for base models that no such cell needs."""
    left = [c for c in todo if c.key not in results.records]
    return [c for c in left if not isinstance(c, Base) or any(c.key in o.needs for o in left)]


def estimate(study: Study, todo: list[Cell], results: Results, jobs: int) -> str:
    """Cells, core-hours and wall time, from cells that were measured (same arm first), else from the study's own `minutes`."""
    measured: dict[str, list[float]] = {}
    for key, record in results.records.items():
        measured.setdefault(key.rpartition("/")[2], []).append(record["seconds"])
    everything = [s for values in measured.values() for s in values]
    total, guessed = 0.0, 0
    left = missing(todo, results)
    for cell in left:
        if cell.arm in measured:
            total += sum(measured[cell.arm]) / len(measured[cell.arm])
        else:
            guessed += 1
            default = sum(everything) / len(everything) / 60 if everything else 3.0
            total += 60 * study.minutes.get(cell.arm.partition(":")[0], study.minutes.get("default", default))
    note = f", {guessed} of the cells assumed, not measured" if guessed else ""
    return (
        f"{len(todo)} cells, {len(todo) - len(left)} done; the others: about {total / 3600:.1f} core-hours, "
        f"{total / 3600 / jobs:.1f} hours with {jobs} processes{note}"
    )

"""Random configs made from the JSON schema (`gsi schema`): each is accepted and runs, or refused with a message that names a key that was drawn.

    python tests/fuzz_config.py --configs 10000 --seed 0

Every config begins as one that runs, in the scripted world with four questions; then up to five keys get values of the schema, of its edges, or of none
of it. Whole numbers stay small: k of a billion is a valid config, and runs for ever. Left as they are: what leads to other machines (hub, trackers).
"""

import argparse
import collections
import contextlib
import copy
import json
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import hypothesis
import scripted
from hypothesis import strategies as st

import gsi
from gsi.config import Config, ConfigError, load_config
from gsi.progress import Reporter
from gsi.types import GsiError, NothingAccepted

SCHEMA = Config.model_json_schema(by_alias=True)
LEFT_OUT = {"model", "output_dir", "report_to", "hub", "dimensions", "launch", "python"}
PLACES = ["seed", "iterations", "strategy", "accept", "control", "preset", "keep_models", "warm_start", "teacher", "tasks", "engine"]
WRONG = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    math.nan,
    math.inf,
    "",
    "no",
    "\x00",
    "ü\ud800",
    [],
    [1],
    {},
    {"a": 1},
    [[]],
    "1e3",
    "!!python/object",
    "../..",
]
TEXTS = [
    "",
    "none",
    "auto",
    "{question}",
    "{question} {oops}",
    "{",
    "ü",
    "a b",
    "chain",
    "gsm8k",
    "scripted:respond",
    "no_module:f",
    "all",
    "last",
    "\n",
]


def resolved(schema: dict) -> dict:
    return SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def fitting(schema: dict) -> st.SearchStrategy:
    """Values that the schema allows, small ones and those at its edges; what it cannot say (two keys that exclude each other) is tried too."""
    schema = resolved(schema)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return st.one_of([fitting(c) for c in choices])
    kind = schema.get("type")
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum", schema.get("exclusiveMaximum"))
    if kind == "integer":
        return st.integers(low or 0, min(high or 5, (low or 0) + 4))
    if kind == "number":
        edges = [v for v in (low, high, schema.get("default")) if isinstance(v, int | float)]
        between = st.floats(low if low is not None else -2.0, high if high is not None else (low or 0) + 2.0)
        return st.one_of(between, st.sampled_from(edges)) if edges else between
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        return st.lists(fitting(schema["items"]) if "items" in schema else st.sampled_from(TEXTS), max_size=3)
    if kind == "object" and "properties" in schema:
        keys = {k: fitting(v) for k, v in schema["properties"].items() if k not in LEFT_OUT}
        needed = {k: v for k, v in keys.items() if k in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional={k: v for k, v in keys.items() if k not in needed})
    if kind == "object":
        return st.dictionaries(st.sampled_from(TEXTS), st.sampled_from(TEXTS), max_size=2)
    return st.sampled_from(TEXTS)


def keys() -> list[tuple[tuple[str, ...], dict]]:
    """(path, schema) of every key of the config and of its sections; of engines only the scripted one's."""
    found = []
    for name, schema in SCHEMA["properties"].items():
        if name in LEFT_OUT:
            continue
        found.append(((name,), schema))
        options = [resolved(o) for o in schema.get("anyOf", schema.get("oneOf", [schema]))]
        for option in options:
            if option.get("properties") and (name != "engine" or option["title"] == "ScriptedEngine"):
                found += [((name, key), inner) for key, inner in option["properties"].items() if key not in LEFT_OUT]
    task = SCHEMA["$defs"]["Task"]["properties"]
    return found + [(("tasks", key), inner) for key, inner in task.items() if key not in LEFT_OUT]


KEYS = keys()


@st.composite
def configs(draw) -> tuple[dict, list[tuple[str, ...]]]:
    """(config, paths that were drawn)."""
    config = scripted.config(
        Path("run"), strategy=draw(st.sampled_from(["vanilla", "state_reset", "answer_driven", "rationale_driven", "adaptive"]))
    )
    config |= {
        "iterations": 1,
        "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 2, "levels": [1, 2]}}],
        "sample": {"k": 2, "wanted": 1},
    }
    config = copy.deepcopy(config)
    paths = draw(st.lists(st.integers(0, len(KEYS) - 1), min_size=1, max_size=5, unique=True))
    for index in paths:
        path, schema = KEYS[index]
        value = draw(fitting(schema) if draw(st.integers(0, 9)) > 0 else st.sampled_from(WRONG).map(copy.deepcopy))
        node = config
        for part in path[:-1]:
            node = node[part][0] if part == "tasks" and isinstance(node.get(part), list) and node[part] else node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        else:
            if path not in (("engine",), ("train",)) or not isinstance(value, dict):  # these need their functions
                node[path[-1]] = value
    if draw(st.integers(0, 19)) == 0:
        config[draw(st.sampled_from(["itterations", "Seed", "sample.k", ""]))] = 1
        paths.append(-1)
    return config, [KEYS[i][0] for i in paths if i >= 0]


def attempt(config: dict, paths: list[tuple[str, ...]], folder: Path) -> str:
    """What became of it: runs | nothing accepted | refused | refused later. Raises AssertionError where it is neither."""
    config = config | {"output_dir": str(folder / "run")}
    try:
        loaded = load_config(config)
    except ConfigError as e:
        return check(str(e), config, paths, "refused")
    if loaded.engine.kind != "scripted" or loaded.train.kind != "scripted" or (loaded.teacher and loaded.teacher.kind == "server"):
        return "accepted, for parts that are not here"
    folder.mkdir()
    try:
        with contextlib.chdir(folder):  # relative names, such as a mirror's, are each attempt's own
            gsi.run(loaded, reporter=Reporter("quiet"))
    except NothingAccepted:
        return "nothing accepted"
    except GsiError as e:
        return check(str(e), config, paths, "refused when it runs")
    return "runs"


def check(message: str, config: dict, paths: list[tuple[str, ...]], outcome: str) -> str:
    assert named(message, config, paths), f"names no key that was drawn: {message}"
    return outcome


def named(message: str, config: dict, paths: list[tuple[str, ...]]) -> bool:
    words = {part for path in paths for part in path} | (set(config) - set(SCHEMA["properties"]))
    return any(word in message for word in words if word) or ("" in config and "unknown key" in message)


def fuzz(configs_: int, seed: int, folder: Path) -> collections.Counter:
    outcomes, number, failures = collections.Counter(), iter(range(10**9)), {}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=configs_,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
        print_blob=False,
    )
    @hypothesis.given(configs())
    def one(drawn):
        config, paths = drawn
        place = folder / str(next(number))
        try:
            outcomes[attempt(config, paths, place)] += 1
        except Exception as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            failures.setdefault(
                f"{type(e).__name__} {Path(where.filename).name}:{where.lineno}",
                f"{type(e).__name__}: {e}\nconfig: {json.dumps(config, default=str)}\ndrawn: {paths}",
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)  # it is in memory

    one()
    assert not failures, f"{len(failures)} kinds of failure:\n" + "\n\n".join(failures.values())
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--configs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.fsync = lambda number: None  # thousands of runs that nobody keeps
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch, contextlib.chdir(scratch):
        found = fuzz(args.configs, args.seed, Path(scratch))
    print(
        f"{found.total()} configs, seed {args.seed}: "
        + ", ".join(f"{n} {what}" for what, n in found.most_common())
        + f"; {time.monotonic() - began:.0f} s"
    )
    sys.exit(0)

"""Against collapse: rows of earlier iterations again, rows held out, and the best of several weight mixtures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gsi import parquet
from gsi.runfolder.folder import RunFolder
from gsi.seeds import seed_of
from gsi.train import merge
from gsi.types import Example, GsiError


def replay(folder: RunFolder, n: int, examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Rows of iterations before n (the warm start's too) that are not among `examples`: share x len(examples) of them, drawn by the seed."""
    if not share:
        return []
    taken = {_key(e) for e in examples}
    earlier: dict[tuple[object, ...], Example] = {}
    for m in range(n):
        path = folder.iter(m) / "train.parquet"
        for e in parquet.read(path) if path.exists() else ():
            if _key(e) not in taken:
                earlier[_key(e)] = e
    chosen = sorted(earlier, key=lambda key: seed_of(seed, "replay", n, *key))[: round(share * len(examples))]
    return [earlier[key] for key in sorted(chosen, key=str)]


def _key(e: Example) -> tuple[object, ...]:
    """What makes a row the same one. The openings of a reference share its attempt, -1, and differ by their text."""
    opening = (e.completion,) if e.attempt < 0 and e.guidance else ()
    return (e.query_id, e.iteration, e.attempt, e.source, *opening)


def hold_out(queries: Collection[str], share: float, seed: int) -> set[str]:
    """`share` of the queries, at least one and never all, whose rows are not trained on. Nothing is held out where there is one query only."""
    ordered = sorted(queries, key=lambda q: seed_of(seed, q))
    return set(ordered[: min(len(ordered) - 1, max(1, round(share * len(ordered))))])


def interpolate(
    trained: Path, other: str, weights: float | Sequence[float], score: Callable[[Path], tuple[float, int]]
) -> dict[str, float]:
    """Replaces the model folder `trained` by its mixture with `other`; of several weights by the one that scores best.

    `score(folder)` -> (validation accuracy, tokens generated). Equal scores: the weight nearer to the trained model. Returns figures.
    """
    if isinstance(weights, float | int):
        _replace(trained, other, weights)
        return {"interpolate/weight": float(weights)}
    figures: dict[str, float] = {"interpolate/tokens": 0}
    results = []
    for weight in sorted(set(weights)):
        candidate = trained.with_name(f"{trained.name}.{weight}")
        shutil.rmtree(candidate, ignore_errors=True)
        _mix(trained, other, weight, candidate)
        accuracy, tokens = score(candidate)
        shutil.rmtree(candidate)
        results.append((accuracy, weight))
        figures[f"interpolate/accuracy/{weight:g}"] = accuracy
        figures["interpolate/tokens"] += tokens
    _, best = max(results, key=lambda r: (r[0], -r[1]))
    _replace(trained, other, best)
    return figures | {"interpolate/weight": best}


def check(start: str, other: str) -> None:
    """Raises GsiError where a model trained from `start` cannot be mixed with `other`: before anything is paid for."""
    with _by_key():
        merge.check(start, other)


def _mix(trained: Path, other: str, weight: float, output: Path) -> None:
    with _by_key():
        merge.merge(trained, other, weight, output)


@contextmanager
def _by_key() -> Iterator[None]:
    try:
        yield
    except GsiError as e:
        raise GsiError(f"train.interpolate: {e}") from e


def _replace(trained: Path, other: str, weight: float) -> None:
    if weight > 0:
        mixed = trained.with_name(trained.name + ".mixed")
        shutil.rmtree(mixed, ignore_errors=True)
        _mix(trained, other, weight, mixed)
        shutil.rmtree(trained)
        mixed.rename(trained)

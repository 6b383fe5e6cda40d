"""A user's check by name: found in the parent, and loaded again in the workers that run it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import signal
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsi.types import GsiError, Query

LOADING = 300.0  # seconds that a worker may take to import the file of a check; an item's time begins afterwards


@dataclass(frozen=True)
class Reference:
    """A user's check by name, so that a worker can load it: a module or a file, and the name inside it."""

    place: str
    name: str

    def load(self) -> Callable[[str, Query], Any]:
        """Raises what the import of its place raises, and GsiError where that has no such name."""
        found: Any = _module(self.place)
        for part in self.name.split("."):
            if not hasattr(found, part):
                raise GsiError(f"{self.place} has no function {self.name!r} at its top level (below a main guard, no worker sees it)")
            found = getattr(found, part)
        return found

    def __str__(self) -> str:
        return f"{self.place}:{self.name}"


def refer(check: str | Callable[..., Any]) -> Reference:
    """The reference of a user's check, resolved once. Raises GsiError if it cannot be found or takes other arguments."""
    if callable(check):
        name = getattr(check, "__qualname__", type(check).__name__)
        if "<" in name or not hasattr(check, "__qualname__"):
            raise GsiError(f"check {name}: workers load a check by name, so it has to be a function at the top level of a module or file")
        place = check.__module__
        if place == "__main__":
            place = str(getattr(sys.modules["__main__"], "__file__", None) or "")
            if not place:
                raise GsiError(f"check {name}: workers cannot load what was typed in; put it in a file and name it as file.py:{name}")
            return Reference(str(Path(place).resolve()), name)
        return Reference(place, name)
    place, colon, name = check.rpartition(":")
    if not colon or not place or not name:
        raise GsiError(f"check {check!r}: expected module:function or path/file.py:function")
    reference = Reference(str(Path(place).resolve()) if place.endswith(".py") else place, name)
    try:
        function = reference.load()
    except FileNotFoundError:
        raise GsiError(f"check {check!r}: no file {reference.place}") from None
    except (ImportError, SyntaxError, AttributeError) as e:
        raise GsiError(f"check {check!r}: {place} cannot be imported: {e}") from e
    except GsiError as e:
        raise GsiError(f"check {check!r}: {e}") from e
    if not callable(function):
        raise GsiError(f"check {check!r}: {name} is no function")
    try:
        inspect.signature(function).bind("", None)
    except TypeError as e:
        raise GsiError(f"check {check!r}: is called as {name}(response, query): {e}") from None
    return reference


_FILES: dict[str, Any] = {}
_importing: ContextVar[bool] = ContextVar("importing", default=False)


def refuse_while_importing() -> None:
    """Raises GsiError where the file of a check is being imported: a script without a main guard would start its run again in every worker."""
    if _importing.get():
        raise GsiError(
            "its file is imported where the check is needed, also in workers, and would start the run again: "
            "put `gsi.run(...)` under `if __name__ == '__main__':`, or the check in a file of its own"
        )


def _module(place: str) -> Any:
    token = _importing.set(True)
    try:
        return _imported(place)
    finally:
        _importing.reset(token)


def _imported(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    if place not in _FILES:
        spec = importlib.util.spec_from_file_location(f"gsi_check_{Path(place).stem}", place)
        assert spec is not None  # always so for a name that ends in .py
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _FILES[place] = module
    return _FILES[place]


class ImportTimeout(BaseException):
    """Not an Exception: a file that tries something for ever catches those."""


def load_within(reference: Reference, seconds: float) -> Callable[[str, Query], Any] | GsiError:
    """Runs in a worker's main thread. Whatever goes wrong is kept for those who ask for the check: a worker that ends is started again for ever."""

    def stop(*_: Any) -> None:
        raise ImportTimeout(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return reference.load()
    except GsiError as e:
        return GsiError(f"check {reference}: {e}")
    except BaseException as e:  # sys.exit() too
        what = f"a worker cannot import its file: {type(e).__name__}: {e}"
        return GsiError(f"check {reference}: {what}; what is not for workers goes under `if __name__ == '__main__':`")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""Guided self-improvement for language models. `import gsi` loads neither torch nor transformers."""

from typing import Any

from gsi.types import GsiError, Query, Verdict

__version__ = "0.1.0"
__all__ = ["GsiError", "Query", "Verdict", "grade", "load_config", "run"]


def __getattr__(name: str) -> Any:
    # loaded on first use: the command line and scripts that only need the nouns start fast
    if name == "grade":
        from gsi.verify import grade

        return grade
    if name == "load_config":
        from gsi.config import load_config

        return load_config
    if name == "run":
        from gsi.loop import run

        return run
    raise AttributeError(f"module 'gsi' has no attribute {name!r}")

"""A checker and a trainer for runs of the vLLM tests, loaded by path (in light worker processes)."""

import shutil


def ends(response: str, query) -> bool:
    """Any response passes that is not empty."""
    return bool(response)


def copy_model(job) -> dict[str, float]:
    """Learns nothing: every iteration has a model of its own to start."""
    shutil.copytree(job.model, job.output)
    return {"loss": 0.0, "steps": 1.0, "tokens": 1.0}

"""Fixtures shared by the tests. Everything runs offline, on one torch thread per process."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real data files (train/, test/), named by GSI_DATA or found beside the project; else the test is skipped."""
    path = Path(os.environ.get("GSI_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "train").is_dir():
        pytest.skip(f"real data not found at {path}; set GSI_DATA to a folder with train/ and test/")
    return path

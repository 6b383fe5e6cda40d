"""Fixtures shared by the tests. Everything runs offline, on one torch thread per process."""

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("gsi", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
settings.load_profile("gsi")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)  # tables are as wide as where there is no terminal, under pytest-xdist too

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real data files (train/, test/), named by GSI_DATA or found beside the project; else the test is skipped."""
    path = Path(os.environ.get("GSI_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "train").is_dir():
        pytest.skip(f"real data not found at {path}; set GSI_DATA to a folder with train/ and test/")
    return path


@pytest.fixture(scope="session")
def check_folder() -> Callable[[Path], list[str]]:
    """The contract's own checker of run folders, where it is at hand; else the test is skipped."""
    path = ROOT.parent / "shared" / "check_run_folder.py"
    if not path.exists():
        pytest.skip(f"no {path.name} beside the project")
    return runpy.run_path(str(path))["check"]

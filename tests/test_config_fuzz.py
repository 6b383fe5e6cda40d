"""Random configs are accepted and run, or are refused by the name of a key; `make config-fuzz` does 500, `make torture` 10,000."""

import os
import subprocess
import sys
from pathlib import Path


def test_random_configs_run_or_are_refused_by_name():
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(__file__).parent / "fuzz_config.py"), "--configs", "60", "--seed", "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 configs" in done.stdout

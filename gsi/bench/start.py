"""How long `import gsi` and `gsi --version` take, beside the bare interpreter: `gsi bench start`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from gsi.bench import Line

CODE = {"python": ["-c", "pass"], "import": ["-c", "import gsi"], "version": ["-m", "gsi", "--version"]}


def start(times: int = 9) -> Line:
    """Medians over processes of their own, in turn; `cpu` is what they computed, whatever else the machine did."""
    wall: dict[str, list[float]] = {name: [] for name in CODE}
    cpu: dict[str, list[float]] = {name: [] for name in CODE}
    for _ in range(times):
        for name, arguments in CODE.items():
            before, began = os.times(), time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            wall[name].append(time.perf_counter() - began)
            after = os.times()
            cpu[name].append(after.children_user + after.children_system - before.children_user - before.children_system)
    line: Line = {"times": times}
    for name in CODE:
        line |= {f"{name}_seconds": round(median(wall[name]), 3), f"{name}_cpu_seconds": round(median(cpu[name]), 3)}
    return line

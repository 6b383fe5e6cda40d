"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from gsi.runfolder.state import now
from gsi.types import GsiError


def hold_lock(path: Path) -> Any:
    """Holds run.lock for this process; the system releases it when the process dies, however it dies."""
    file = (path / "run.lock").open("a+", encoding="utf-8")
    for wait in (0.1, 0.3, 1.0, 2.0, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                file.close()
                raise
            file.seek(0)
            holder = file.read().strip() or "another process"
            if wait and _dead(holder):  # what is left of a killed process, its children, will let go
                time.sleep(wait)
                continue
            file.close()
            raise GsiError(f"{path}: in use by {holder}; wait for it, stop it, or choose another output_dir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {now()}")
    file.flush()
    return file


def _dead(holder: str) -> bool:
    """Whether the process that wrote its name into the lock is of this machine and gone."""
    found = re.match(r"process (\d+) on (\S+)", holder)
    if not found or found[2] != platform.node():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False

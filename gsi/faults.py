"""Faults of the machine as messages: a disk that is full or cannot be written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gsi.types import GsiError

_FIX = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "give this user permission",
    errno.EPERM: "give this user permission",
    errno.EIO: "look after the disk (the kernel's log says more)",
}


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Inside, an OSError that says that files cannot be written or read becomes a GsiError with the way out."""
    try:
        yield
    except OSError as e:
        if e.errno not in _FIX:
            raise
        raise GsiError(
            f"{e.filename or folder}: {e.strerror}; {_FIX[e.errno]}. Everything finished is saved: the same command goes on from here"
        ) from e

"""What `python -m gsi.lab.NAME` does with a GsiError: it is said in a line, without a traceback, and the exit code is that of the `gsi` command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from gsi.types import GsiError


def end(main: Callable[[], int]) -> NoReturn:
    try:
        sys.exit(main())
    except GsiError as e:
        print(e, file=sys.stderr)
        sys.exit(e.exit_code)

"""The commands of `gsi`, a file for each group: its arguments (`add`) and what each command does.

Commands import what they use when they run: `gsi --help` and completion stay fast.
"""

import argparse
from collections.abc import Callable

# name, what it does (may return an exit code), its line of help -> its parser
Add = Callable[[str, Callable[[argparse.Namespace], int | None], str], argparse.ArgumentParser]

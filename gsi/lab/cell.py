"""One cell of a study, in a process of its own: `python -m gsi.lab.cell CONFIG.yaml [profile]`.

A whole run, or with `profile` the plain attempts of the initial model only.
"""

from __future__ import annotations

import sys

from gsi import stages
from gsi.config import load_config
from gsi.loop import loop, open_run
from gsi.progress import Reporter
from gsi.types import GsiError


def main() -> int:
    try:
        with open_run(load_config(sys.argv[1]), reporter=Reporter("quiet")) as ctx:
            if sys.argv[2:] != ["profile"]:
                loop(ctx)
            elif not ctx.folder.done(1, "sample"):
                ctx.folder.set_model(0, ctx.base)
                ctx.folder.mark(0, "train", skipped=True)
                stages.sample(ctx, 1)
    except GsiError as e:
        print(e)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

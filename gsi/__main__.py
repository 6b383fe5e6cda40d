"""`python -m gsi` is the command `gsi`."""

import sys

from gsi.cli import main

sys.exit(main())

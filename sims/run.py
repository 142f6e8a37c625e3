"""`fedbrats run` from a checkout: `python sims/run.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.run.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

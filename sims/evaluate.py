"""`fedbrats evaluate` from a checkout: `python sims/evaluate.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

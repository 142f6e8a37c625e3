"""`fedbrats compare` from a checkout: `python sims/compare.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.compare import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

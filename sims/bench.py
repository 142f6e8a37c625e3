"""`fedbrats bench` from a checkout: `python sims/bench.py ...`."""

from __future__ import annotations

import sys

from fedbrats.bench.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

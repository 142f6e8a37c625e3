"""`fedbrats cite` from a checkout: `python sims/cite.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.cite import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

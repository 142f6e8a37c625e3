"""`fedbrats export` from a checkout: `python sims/export.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.export.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

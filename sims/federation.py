"""`fedbrats federation` from a checkout: `python sims/federation.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.federation.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`fedbrats server` from a checkout: `python sims/server.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

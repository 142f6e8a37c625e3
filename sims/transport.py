"""`fedbrats transport` from a checkout: `python sims/transport.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.transport.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

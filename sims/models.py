"""`fedbrats models` from a checkout: `python sims/models.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.models.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

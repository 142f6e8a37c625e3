"""`fedbrats habitats` from a checkout: `python sims/habitats.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.habitats.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

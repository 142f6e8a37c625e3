"""`fedbrats growth` from a checkout: `python sims/growth.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.growth import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

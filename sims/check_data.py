"""`fedbrats check-data` from a checkout: `python sims/check_data.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.check_data import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

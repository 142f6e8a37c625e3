"""`fedbrats predict` from a checkout: `python sims/predict.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.predict.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

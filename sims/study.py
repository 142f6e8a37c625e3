"""`fedbrats study` from a checkout: `python sims/study.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.study.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

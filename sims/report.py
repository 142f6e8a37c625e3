"""`fedbrats report` from a checkout: `python sims/report.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

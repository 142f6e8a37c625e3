"""`fedbrats audit` from a checkout: `python sims/audit.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.audit import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

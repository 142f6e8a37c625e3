"""`fedbrats site` from a checkout: `python sims/site.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.site.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

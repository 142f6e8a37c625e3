"""`fedbrats supervoxels` from a checkout: `python sims/supervoxels.py ...`."""

from __future__ import annotations

import sys

from fedbrats.commands.supervoxels import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

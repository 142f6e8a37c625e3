"""What the words of `fedbrats site` share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedbrats.commands.words import path
from fedbrats.config.names import shown
from fedbrats.config.site_file import SiteFile

PIDS = "running.json"  # in a site's storage


def parser(description: str) -> argparse.ArgumentParser:
    """A parser whose first word is the site's own configuration."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "site",
        type=path,
        help="configuration of the site, site.yaml",
    )
    return made


def pid_file(site: SiteFile) -> Path:
    """Where the processes of a site that runs are written down."""
    return Path(site.storage) / PIDS


def failed(error: Exception) -> int:
    """Say what went wrong; the exit status."""
    print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
    return 2

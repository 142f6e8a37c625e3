"""`compare`: one table over the jobs of a sweep."""

from __future__ import annotations

import argparse
import sys

from fedbrats.commands.words import path


def main(arguments: list[str]) -> int:
    """Write `compare.csv`, `compare.html` and `compare/` into the sweep folder and print paths; 2 for no sweep."""
    parser = argparse.ArgumentParser(
        description="One table of arms and institutions over the jobs of a sweep."
    )
    parser.add_argument(
        "sweep", type=path, help="folder with one run folder per job, such as multirun/<date>/<time>"
    )
    parser.add_argument(
        "--over", metavar="METHOD", help="method that the others are measured against, as the table calls it"
    )
    given = parser.parse_args(arguments)
    from fedbrats.config.names import shown
    from fedbrats.runs.reading import RunFolderError
    from fedbrats.studies.compare import write_comparison

    try:
        paths = write_comparison(given.sweep, given.over)
    except RunFolderError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    print(*paths, sep="\n")
    return 0

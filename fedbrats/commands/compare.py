"""`compare`: one table over the jobs of a sweep."""

from __future__ import annotations

import argparse
import sys

from fedbrats.commands.words import path


def main(arguments: list[str]) -> int:
    """Write `compare.csv` and `compare.html` into the sweep folder and print their paths; 2 for no sweep."""
    parser = argparse.ArgumentParser(
        description="One table of arms and institutions over the jobs of a sweep."
    )
    parser.add_argument(
        "sweep", type=path, help="folder with one run folder per job, such as multirun/<date>/<time>"
    )
    sweep = parser.parse_args(arguments).sweep
    from fedbrats.config.names import shown
    from fedbrats.runs.reading import RunFolderError
    from fedbrats.studies.compare import write_comparison

    try:
        paths = write_comparison(sweep)
    except RunFolderError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    print(*paths, sep="\n")
    return 0

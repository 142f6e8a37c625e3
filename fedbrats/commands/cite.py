"""`cite`: the papers of what a run has used."""

from __future__ import annotations

import argparse
import sys

from fedbrats.commands.words import path


def main(arguments: list[str]) -> int:
    """Print a line for every part of the run with its paper; 2 for a folder that is no run."""
    parser = argparse.ArgumentParser(description="List the papers of what a run has used.")
    parser.add_argument("run", type=path, help="run folder, outputs/<date>/<time>")
    folder = parser.parse_args(arguments).run
    from fedbrats.config.names import shown
    from fedbrats.runs.reading import RunFolderError
    from fedbrats.runs.run_folder import read_config
    from fedbrats.studies.citing import papers

    if not (folder / "config.yaml").is_file():
        print(f"error: {shown(str(folder))}: not a run folder, config.yaml is missing", file=sys.stderr)
        return 2
    try:
        found = papers(read_config(folder / "config.yaml"))
    except RunFolderError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    for key, part, source in found:
        print(f"{shown(key)} ({shown(part)}): {source}")
    return 0

"""`report`: `report.html` of a run, built again from its files."""

from __future__ import annotations

import argparse
import sys

from fedbrats.commands.words import path


def main(arguments: list[str]) -> int:
    """Write `report.html`, print the result table and the path; 2 for a folder that is no readable run."""
    parser = argparse.ArgumentParser(description="Rebuild report.html of a run folder.")
    parser.add_argument("run", type=path, help="run folder, outputs/<date>/<time>")
    folder = parser.parse_args(arguments).run
    from rich.console import Console

    from fedbrats.config.names import shown
    from fedbrats.report.html import write_report
    from fedbrats.report.terminal import print_result_table
    from fedbrats.runs.reading import RunFolderError

    try:
        report = write_report(folder)
        print_result_table(folder, Console())
    except RunFolderError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    print(report)
    return 0

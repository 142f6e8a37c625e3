"""`report`: `report.html` and `report_public.html` of a run, built again from its files."""

from __future__ import annotations

import argparse
import sys

from fedbrats.commands.words import path


def main(arguments: list[str]) -> int:
    """Write both, print the result table and the paths; 2 for a folder that is no readable run."""
    parser = argparse.ArgumentParser(
        description="Rebuild report.html (for the inside) and report_public.html (to hand out) of a run folder."
    )
    parser.add_argument("run", type=path, help="run folder, outputs/<date>/<time>")
    folder = parser.parse_args(arguments).run
    from rich.console import Console

    from fedbrats.config.names import shown
    from fedbrats.report.html import write_report
    from fedbrats.report.public import write_public_report
    from fedbrats.report.terminal import print_result_table
    from fedbrats.runs.reading import RunFolderError

    try:
        public, report = write_public_report(folder), write_report(folder)
        print_result_table(folder, Console())
    except RunFolderError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    print(f"to hand out: {public}")
    print(report)
    return 0

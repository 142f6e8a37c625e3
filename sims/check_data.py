"""List what is found under a folder, per institution, and every problem of its files.

    python sims/check_data.py data.root=/path/to/BraTS2021 [partition.table=table.csv] [data.et_label=4] [...]

Takes the same overrides as sims/run.py. The exit status is 0 without errors (there may be warnings), 1 with
errors, 2 when the command itself cannot be used.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from fedbrats.commands.check_data import institution_table, list_folder, read_overrides

CONF = Path(__file__).resolve().parent.parent / "conf"


def main(arguments: list[str]) -> int:
    """Check one folder and return the exit status."""
    console = Console(highlight=False)
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(__doc__, markup=False)
        return 0 if arguments else 2
    try:
        config = read_overrides(CONF, arguments)
        with console.status("reading") as status:
            listing = list_folder(config, lambda result: status.update(f"read {result.case}"))
    except ValueError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    console.print(institution_table(listing))
    if listing.check.sentence:
        console.print(listing.check.sentence, markup=False, soft_wrap=True)
    for problem in listing.problems:
        console.print(str(problem), markup=False, soft_wrap=True)
    errors = sum(problem.severity == "error" for problem in listing.problems)
    console.print(f"Errors: {errors}, warnings: {len(listing.problems) - errors}.")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

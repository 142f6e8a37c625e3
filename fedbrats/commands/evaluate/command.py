"""Score label files, other tools' too.

    fedbrats evaluate predictions=<file or folder> references=<file or folder>
        [metrics.convention=brats2023] [labels.predictions=gli2023] [labels.references=gli2023]
        [output=evaluation] [max_voxels=134217728]

Standard output has one JSON object per case and region and nothing else; the table for people goes to
standard error; cases.csv and summary.csv go to the output folder.
"""

from __future__ import annotations

import sys

from rich.console import Console


def main(arguments: list[str]) -> int:
    """Run one evaluation and return the exit status: 0, or 2 for input that cannot be scored."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.width = max(console.width, 130)  # a cut number is worse than a wrapped line
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    from fedbrats.commands.evaluate.evaluate_files import evaluate, json_line, read_arguments, summary_table
    from fedbrats.report.terminal import plain

    try:
        cases, summary, metrics = evaluate(
            read_arguments(arguments),
            emit=lambda row: print(json_line(row), flush=True),
            note=lambda text: console.print(plain(text)),
        )
    except ValueError as error:
        console.print(plain(f"error: {error}"))
        return 2
    console.print(summary_table(cases, summary, metrics))
    return 0

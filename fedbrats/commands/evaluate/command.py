"""Score label files, other tools' too.

    fedbrats evaluate predictions=<file, folder or run folder> references=<file or folder>
        [only_predicted=true] [grid=voxels] [metrics.convention=brats2023]
        [labels.predictions=gli2023] [labels.references=gli2023] [output=evaluation] [max_voxels=134217728]

predictions: a run folder stands for what its arms predicted with report.predictions=true; its test cases are scored.
references: the cases that are scored; only_predicted=true scores those that have a prediction. The data.root of a run
will do, images are passed over.
grid=voxels compares voxels as they are stored, for predictions whose header was lost (an identity affine).

Standard output has one JSON object per case and region and nothing else; the table for people goes to standard error;
cases.csv and summary.csv go to the output folder. The exit status is 0, 1 if something that was asked for could not be
scored (a prediction that is missing or cannot be used has the worst scores, a case without a usable reference is in no
table), 2 if nothing could be scored.
"""

from __future__ import annotations

import sys

from rich.console import Console


def main(arguments: list[str]) -> int:
    """Run one evaluation and return the exit status."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.width = max(console.width, 150)  # a cut number is worse than a wrapped line
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    from fedbrats.commands.evaluate.arguments import read_arguments
    from fedbrats.commands.evaluate.evaluate_files import evaluate
    from fedbrats.commands.evaluate.tables import json_line, summary_table
    from fedbrats.report.terminal import plain

    try:
        found = evaluate(
            read_arguments(arguments),
            emit=lambda row: print(json_line(row), flush=True),
            note=lambda text: console.print(plain(text)),
        )
    except ValueError as error:
        console.print(plain(f"error: {error}"))
        return 2
    console.print(summary_table(found.cases, found.summary, found.metrics))
    console.print(plain(str(found)))
    return 0 if found.complete else 1

"""`report_public.html`: the report to hand out, from the same templates, with what may leave and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.report import html
from fedbrats.report.page import write_page
from fedbrats.report.results import Results
from fedbrats.runs.run_folder import RunFolder, read_run

PUBLIC_NAME = "report_public.html"
FACTS = (  # of the head; the others may have paths or describe the machine
    *("Started", "Strategy", "Network", "Loss", "Arms", "Rounds", "Optimiser steps in a row", "Patch"),
    *("Partition", "Cases", "Metrics", "Lesions", "Duration", "Versions", "Aggregation", "Privacy"),
    "Personalised",
)
WHICH = (
    "Report to hand out",
    f"It holds means over at least {MIN_CASES} test cases, who took part, what was spent of privacy, and costs. Not in "
    "it: names of cases, scores and images of single patients, institutions with fewer test cases, gradient norms, "
    f"paths, the command and the configuration. All of that is in {html.REPORT_NAME}, the report for the inside. Names "
    "of institutions are in both.",
)


def write_public_report(run_folder: Path) -> Path:
    """Build `report_public.html` in a run folder from its files, replacing an older one at once.

    Returns:
        Path of the report.

    Raises:
        RunFolderError: the folder is no run folder, or a file in it cannot be read.
    """
    results = Results(read_run(run_folder), public=True)
    chosen = [section for section, leaves in html.sections_of(results).items() if leaves]
    sections = [found for section in chosen if (found := section(results)) is not None]
    return write_page(results.run.path / PUBLIC_NAME, "report.html.j2", head(results), sections)


def head(results: Results) -> dict[str, Any]:
    """What stands above the sections, without the folder and without the reason of a failure."""
    run = results.run
    whole = html.head(results)
    known = dict(whole["facts"])
    return {
        **whole,
        "which": WHICH,
        "folder": "",
        "status": _status(run),
        "missing": [text.replace(f" ({run.status})", "") for text in whole["missing"]],
        "facts": [(name, known[name]) for name in FACTS if name in known],
    }


def _status(run: RunFolder) -> str:
    """ "finished", who is missing at its end, "failed" or "not finished"."""
    return run.status.split(":")[0]

"""`report_public.html`: the report to hand out, from the same templates, with what may leave and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.report import html
from fedbrats.report.page import write_page
from fedbrats.report.results import Results
from fedbrats.report.sections import (
    boxes,
    cost,
    curves,
    environment,
    institutions,
    overlays,
    partition,
    personal,
    postprocess,
    privacy,
    problems,
    result,
    statistics,
    uncertainty,
)
from fedbrats.runs.run_folder import RunFolder, read_run

PUBLIC_NAME = "report_public.html"
# Every section of a report is in one of these two; one that is in neither stays inside.
LEAVES = (result.section, institutions.section, privacy.section, cost.section)
STAYS = (
    personal.section,  # gains of single institutions, paired by case
    curves.section,  # ranges over institutions, however few their validation cases
    boxes.section,  # every dot is a patient
    postprocess.section,  # values that single institutions found
    uncertainty.section,  # lists cases
    partition.section,  # volumes and intensities of an institution's patients
    overlays.section,  # images of patients
    problems.section,  # names of cases and files, words of the institutions
    statistics.section,  # a median or quartile is the score of one patient
    environment.section,  # the command line and the configuration with its paths
)
FACTS = (  # of the head; the others may have paths or describe the machine
    *("Started", "Strategy", "Network", "Loss", "Arms", "Rounds", "Optimiser steps in a row", "Patch"),
    *("Partition", "Cases", "Metrics", "Lesions", "Duration", "Versions", "Privacy", "Personalised"),
)
WHICH = (
    "Report to hand out",
    f"It holds means over at least {MIN_CASES} test cases, what was spent of privacy, and costs. Not in it: names of "
    "cases, scores and images of single patients, institutions with fewer test cases, gradient norms, paths, the "
    f"command and the configuration. All of that is in {html.REPORT_NAME}, the report for the inside. Names of "
    "institutions are in both.",
)


def write_public_report(run_folder: Path) -> Path:
    """Build `report_public.html` in a run folder from its files, replacing an older one at once.

    Returns:
        Path of the report.

    Raises:
        RunFolderError: the folder is no run folder, or a file in it cannot be read.
    """
    results = Results(read_run(run_folder), public=True)
    chosen = [section for section in html.SECTIONS if section in LEAVES]
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
    """ "finished", "failed" or "not finished"."""
    return run.status.split(":")[0]

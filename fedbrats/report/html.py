"""`report.html`: the report for the inside, one file that needs nothing else, built from a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbrats.report import words
from fedbrats.report.epsilon import NO_EPSILON, epsilon_text
from fedbrats.report.page import Section, write_page
from fedbrats.report.results import Results
from fedbrats.report.sections import (
    aggregates,
    attendance,
    boxes,
    classification,
    cost,
    cross,
    curves,
    environment,
    institutions,
    overlays,
    partition,
    personal,
    plan,
    postprocess,
    privacy,
    problems,
    published,
    result,
    statistics,
    survey,
    uncertainty,
)
from fedbrats.report.secure import secure_sentence
from fedbrats.runs.privacy_files import asks_for_privacy
from fedbrats.runs.run_folder import read_run
from fedbrats.runs.taking_part import headline

REPORT_NAME = "report.html"
WHICH = (
    "Report for the inside",
    "It holds names of cases, scores and images of single patients, paths, the command and the complete configuration: "
    "do not hand it out. What may leave is in report_public.html.",
)
LEAVES, STAYS = True, False  # whether a section is in the report to hand out (`public.py`), too
SECTIONS: dict[Callable[[Results], Section | None], bool] = {  # in the order of the page
    result.section: LEAVES,
    published.section: STAYS,  # means of arms, which the result has already
    aggregates.section: LEAVES,
    institutions.section: LEAVES,
    attendance.section: LEAVES,  # rounds and steps of institutions; reasons are grouped, not their words
    personal.section: STAYS,  # gains of single institutions, paired by case
    privacy.section: LEAVES,
    curves.section: STAYS,  # ranges over institutions, however few their validation cases
    boxes.section: STAYS,  # every dot is a patient
    cross.section: STAYS,  # means over the test cases of an institution, however few
    postprocess.section: STAYS,  # values that single institutions found
    uncertainty.section: STAYS,  # lists cases
    survey.section: STAYS,  # counts of single institutions
    plan.section: STAYS,  # medians over patients
    partition.section: STAYS,  # volumes and intensities of an institution's patients
    overlays.section: STAYS,  # images of patients
    cost.section: LEAVES,
    problems.section: STAYS,  # names of cases and files, words of the institutions
    statistics.section: STAYS,  # a median or quartile is the score of one patient
    environment.section: STAYS,  # the command line and the configuration with its paths
}

CLASSIFIED: dict[Callable[[Results], Section | None], bool] = {  # the same of a run that classifies
    classification.section: LEAVES,
    attendance.section: LEAVES,
    privacy.section: LEAVES,
    survey.section: STAYS,
    partition.section: STAYS,
    cost.section: LEAVES,
    problems.section: STAYS,
    environment.section: STAYS,
}
OF_VOXELS = ("Metrics", "Lesions", "Labels")  # facts of the head that mean nothing there


def sections_of(results: Results) -> dict[Callable[[Results], Section | None], bool]:
    """The sections of the task, and whether each leaves."""
    return CLASSIFIED if results.run.classifies else SECTIONS


def write_report(run_folder: Path) -> Path:
    """Build `report.html` in a run folder from its files, replacing an older one at once.

    A run that is not finished, or lacks arms, gives a report that says what is missing.

    Returns:
        Path of the report.

    Raises:
        RunFolderError: the folder is no run folder, or a file in it cannot be read.
    """
    results = Results(read_run(run_folder))
    sections = [found for section in sections_of(results) if (found := section(results)) is not None]
    return write_page(results.run.path / REPORT_NAME, "report.html.j2", head(results), sections, private=True)


def head(results: Results) -> dict[str, Any]:
    """What stands above the sections: what was run, how it ended, and what is missing."""
    run = results.run
    lost = results.privacy is None and asks_for_privacy(run.config)
    return {
        "which": WHICH,
        "title": words.title(run),
        "folder": "/".join(run.path.resolve().parts[-2:]),
        "status": run.status,
        "alarm": (alarm := headline(results.taking_part, results.missed_share)),
        "finished": run.status == "finished" and not alarm,
        "missing": [*run.missing, *([NO_EPSILON] if lost else [])],
        "facts": [*_facts(results), *_protection(results)],
    }


def _facts(results: Results) -> list[tuple[str, str]]:
    known = words.facts(results.run)
    return [fact for fact in known if fact[0] not in OF_VOXELS] if results.run.classifies else known


def _protection(results: Results) -> list[tuple[str, str]]:
    """Facts of a run with secure aggregation, of a private and of a personalised one."""
    out, run = [], results.run
    if said := secure_sentence(run.path, run.config, run.rounds):
        out.append(("Aggregation", said))
    if (privacy := results.privacy) is not None:
        largest = "unknown" if privacy.unknown else epsilon_text(privacy.epsilon)
        out.append(("Privacy", f"one {privacy.unit}, largest epsilon {largest}"))
    if results.personalised:
        known = results.personalization
        out.append(("Personalised", known["name"] if known else "not recorded"))
    return out

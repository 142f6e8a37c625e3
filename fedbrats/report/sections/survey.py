"""What the sites told of their patients before training, and who is unlike the others."""

from __future__ import annotations

from typing import Any

from fedbrats.report.cells import number
from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results
from fedbrats.report.sections.survey_figures import survey_figure
from fedbrats.runs.case_tables import SURVEY
from fedbrats.runs.reading import read_json


def section(results: Results) -> Section | None:
    """Histograms of every site; None for a run without a survey."""
    found = read_json(results.run.path / SURVEY)
    if not found or not isinstance(found.get("sites"), dict):
        return None
    context = {
        "figure": data_uri(survey_figure(found), "svg") if found["sites"] else "",
        "unusual": [_row(row) for row in found.get("unusual", [])],
        "failed": found.get("failed", {}),
        "least": found.get("least"),
        "epsilon": found.get("epsilon"),
    }
    return Section("survey", "The data before training", context, nav="Survey")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "distance": number(row.get("distance"), 2)}

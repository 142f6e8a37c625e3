"""The page and the figures of a folder of predictions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fedbrats.report.predictions import write_prediction_report, write_uncertainty_figures
from fedbrats.report.sections.uncertainty_figures import uncertainty_context
from tests.report.sections.test_postprocess_tables import write_rows
from tests.report.sections.test_uncertainty_figures import write_bins


def test_folder_of_predictions(tmp_path: Path) -> None:
    """No arm, no site, no scores: the ranking is there, nothing else."""
    pd.DataFrame({"case": ["x", "y"], "region": "WT", "uncertainty": [0.1, 0.4]}).to_csv(
        tmp_path / "uncertainty.csv", index=False
    )
    assert write_uncertainty_figures(tmp_path) == []
    found = uncertainty_context(tmp_path, "scores.csv")
    assert found is not None
    assert [row["case"] for row in found["cases"]] == ["y", "x"]
    page = write_prediction_report(tmp_path).read_text()
    assert "Most uncertain cases" in page
    assert "Institution" not in page
    assert "<img" not in page
    pd.DataFrame({"case": ["x", "y"], "region": "WT", "dice": [0.9, 0.5]}).to_csv(
        tmp_path / "scores.csv", index=False
    )
    write_bins(tmp_path)
    assert [path.name for path in write_uncertainty_figures(tmp_path)] == ["reliability.png", "retained.png"]
    assert write_prediction_report(tmp_path).read_text().count("<img") == 2


def test_page_of_predictions_has_it(tmp_path: Path) -> None:
    page = write_prediction_report(write_rows(tmp_path)).read_text()
    assert "ET minimum 1 mL" in page
    assert "No uncertainty was recorded" in page

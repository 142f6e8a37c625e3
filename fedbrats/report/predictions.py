"""The page and the figures of a folder of predictions."""

from __future__ import annotations

from pathlib import Path

from fedbrats.files import replacing
from fedbrats.report.page import Section, pictured, write_page
from fedbrats.report.sections.postprocess_tables import postprocess_context
from fedbrats.report.sections.uncertainty_figures import FIGURES, uncertainty_context, uncertainty_figures
from fedbrats.report.sections.uncertainty_tables import read_bins, read_doubts
from fedbrats.report.style import styled


def write_prediction_report(folder: Path) -> Path:
    """Build `report.html` in a folder of predictions: post-processing, what the uncertainty is worth, what to look at.

    Raises:
        RunFolderError: a CSV file in it cannot be read.
    """
    steps, doubts = postprocess_context(folder), uncertainty_context(folder, "scores.csv")
    sections = []
    if steps is not None:
        sections.append(Section("postprocess", "Post-processing", {**steps, "convention": ""}))
    if doubts is not None:
        context = pictured({**doubts, "title": "", "names": True}, FIGURES)
        sections.append(Section("uncertainty", "Uncertainty", context))
    head = {"folder": "/".join(folder.resolve().parts[-2:]), "uncertain": doubts is not None}
    return write_page(folder / "report.html", "predictions.html.j2", head, sections, private=True)


def write_uncertainty_figures(folder: Path) -> list[Path]:
    """Write reliability.png and retained.png of a folder of predictions beside its CSV files.

    Args:
        folder: with `uncertainty.csv`, and `reliability.csv` and `scores.csv` where the truth is known.

    Returns:
        The files written; without the truth there are none.

    Raises:
        RunFolderError: a CSV file cannot be read.
    """
    folder, written = Path(folder), []
    for name, figure in uncertainty_figures(read_doubts(folder, "scores.csv"), read_bins(folder)).items():
        path = folder / f"{name}.png"
        with styled(), replacing(path) as unfinished:
            figure.savefig(unfinished, dpi=130, metadata={"Software": None})
        written.append(path)
    return written

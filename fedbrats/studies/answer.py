"""What a sweep answers: its methods side by side, what can be said of their differences, and the figures of a paper.

compare/
    methods.csv .md .tex     mean and deviation over seeds, worst institution, gap, cost
    institutions.csv         the same by institution
    tests.csv                every method against the reference, with a sentence each
    ranking.csv              mean ranks, and p of every pair
    curves.csv               validation over rounds, steps and bytes
    figures/*.pdf, *.svg
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedbrats.config.schema import FLOOR
from fedbrats.files import replacing, write_text
from fedbrats.metrics.table import Facts
from fedbrats.report.compare.tables import latex, markdown, printed
from fedbrats.report.page import data_uri
from fedbrats.report.style import RC
from fedbrats.runs.table import write_frame
from fedbrats.studies.curves import method_curves
from fedbrats.studies.figures import figures_of
from fedbrats.studies.jobs import Job
from fedbrats.studies.methods import (
    check_comparable,
    institution_means,
    method_table,
    methods_of,
    recipes,
)
from fedbrats.studies.paired import ranking, reference_of, tests
from fedbrats.tasks import segmentation as task

FOLDER = "compare"
PATTERNS = ("pdf", "svg")


def write_answer(
    sweep: Path, jobs: Sequence[Job], metrics: Mapping[str, Facts], over: str | None = None
) -> dict[str, Any]:
    """Write the files below `sweep`/compare and return what `compare.html` prints of them; {} where no job finished.

    Args:
        sweep: folder of the jobs.
        jobs: of it.
        metrics: of them; the shown ones are tested and printed.
        over: method that the others are measured against.

    Raises:
        RunFolderError: the jobs were scored by different conventions, or no method is called `over`.
    """
    check_comparable(jobs)
    methods = methods_of(jobs)
    reference = reference_of(methods, over)
    if not methods:
        return {}
    shown = {metric: metrics[metric] for metric in task.SHOWN if metric in metrics}
    table, means, curves = (
        method_table(methods, metrics),
        institution_means(methods, metrics),
        method_curves(methods),
    )
    # Cases of the one are means over other sites' models; the other is no method, but what all must be above.
    compared = [m for m in methods if m.arm not in ("local_elsewhere", FLOOR)]
    found, left = tests(compared, reference, shown) if reference else (pd.DataFrame(), [])
    ranks, p = ranking(compared, shown)
    cells = printed(table, shown)
    frames = {"methods": table, "institutions": means, "tests": found, "curves": curves}
    frames["ranking"] = (
        ranks.join(p.reset_index(drop=True).add_prefix("p better than ")) if len(ranks) else ranks
    )
    figures = dict(figures_of(sweep, jobs, methods, means, curves))
    pictures = write_answer_files(sweep, frames, cells, figures)
    return {
        "cells": cells,
        "recipes": recipes(jobs),
        "sentences": list(found["sentence"]) if len(found) else [],
        "reference": reference.name if reference else "",
        "left": left,
        "ranks": ranks.to_dict("records"),
        "p": p.round(4).to_numpy().tolist(),
        "figures": pictures,
    }


def write_answer_files(
    sweep: Path, frames: Mapping[str, pd.DataFrame], cells: pd.DataFrame, figures: Mapping[str, Figure]
) -> dict[str, str]:
    """Write the tables, the printed one of methods and the figures below `sweep`/compare.

    Returns:
        The figures for a page, by name.
    """
    folder = sweep / FOLDER
    for name, frame in frames.items():
        write_frame(folder / f"{name}.csv", frame.replace([np.inf, -np.inf], ["inf", "-inf"]))
    write_text(folder / "methods.md", markdown(cells))
    write_text(folder / "methods.tex", latex(cells))
    for name, figure in figures.items():
        _save(figure, folder / "figures" / name)
    return {name: data_uri(figure, "svg") for name, figure in figures.items()}


def _save(figure: Figure, file: Path) -> None:
    """As PDF and SVG, the same bytes for the same numbers."""
    from matplotlib import rc_context

    for pattern in PATTERNS:
        metadata = {"CreationDate": None} if pattern == "pdf" else {"Date": None}
        with rc_context(RC), replacing(file.with_suffix(f".{pattern}")) as unfinished:
            figure.savefig(unfinished, format=pattern, metadata=metadata)

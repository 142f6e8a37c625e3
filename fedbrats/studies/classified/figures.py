"""The figures of a sweep of classifications: those that there is something to show in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedbrats.metrics.classification import bins_of
from fedbrats.report.cells import shorten
from fedbrats.report.compare.label_figures import auc_figure, roc_over_jobs
from fedbrats.report.compare.method_figures import matrix_figure
from fedbrats.report.sections.classification_figures import reliability_figure
from fedbrats.studies.classified.paired import CHANCE
from fedbrats.studies.figures import (
    MOST_METHODS,
    curve_figures,
    epsilon_figures,
    first_run,
    partition_figures,
)
from fedbrats.studies.jobs import Job
from fedbrats.studies.methods import Method
from fedbrats.tasks.classification import CLASSIFICATION, MAIN


def figures_of(
    sweep: Path,
    jobs: Sequence[Job],
    methods: Sequence[Method],
    means: pd.DataFrame,
    curves: pd.DataFrame,
    found: pd.DataFrame,
) -> Iterator[tuple[str, Figure]]:
    """Name and figure.

    Args:
        sweep: folder of the jobs; jobs: of it; methods: of them.
        means: by institution.
        curves: of `studies.curves.method_curves`.
        found: of `classified.paired.tests`.
    """
    yield from curve_figures(curves, CLASSIFICATION)
    yield from epsilon_figures(jobs, CLASSIFICATION)
    if len(chance := found[found["over"] == CHANCE]):
        yield "auc", auc_figure(chance)
        first = {m.name: m for m in methods if m.name in set(chance["method"][:MOST_METHODS])}
        yield "roc", roc_over_jobs({name: told_by(method) for name, method in first.items()})
        yield "calibration", reliability_figure(calibration_of(first))
    wide = means.pivot_table(index="method", columns="site", values=MAIN, sort=False)
    if wide.size:
        yield f"institutions_{MAIN}", matrix_figure(wide, CLASSIFICATION.final_title, "Institution", "")
    yield from partition_figures(first_run(sweep, methods))


def told_by(method: Method) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and labels of the test cases, both [cases], of every job of a method."""
    parts = [job.scores[job.scores["arm"] == method.arm] for job in method.jobs]
    return [(part["score"].to_numpy(float), part["label"].to_numpy(float).astype(int)) for part in parts]


def calibration_of(methods: Mapping[str, Method]) -> dict[str, np.ndarray]:
    """`bins_of` by method, of the cases of all of its jobs together."""
    return {
        shorten(name, 40): np.sum([bins_of(*told) for told in told_by(method)], axis=0)
        for name, method in methods.items()
    }

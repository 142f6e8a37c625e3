"""Figures of a network that classifies: ROC curves and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedbrats.metrics.classification import bins_of
from fedbrats.report.arms import arm_title
from fedbrats.report.style import styled
from fedbrats.tasks.classification import local_at_home

SIDE = 4.2  # inches


def roc_figure(cases: pd.DataFrame) -> Figure:
    """One curve per arm over all test cases that have a score."""
    with styled():
        figure, axes = square("1 - specificity", "Sensitivity")
        for arm, scores, labels in _arms(cases):
            if 0 < labels.sum() < len(labels):
                axes.plot(*roc(scores, labels), label=arm_title(arm))
        axes.legend(loc="lower right")
        return figure


def calibration_figure(cases: pd.DataFrame) -> Figure:
    """Share of label 1 over the mean score of each bin that has cases, by arm."""
    return reliability_figure(
        {arm_title(arm): bins_of(scores, labels) for arm, scores, labels in _arms(cases)}
    )


def reliability_figure(bins: Mapping[str, np.ndarray]) -> Figure:
    """The same of any lines by name, each of `metrics.classification.bins_of`."""
    with styled():
        figure, axes = square("Mean score", "Share of label 1")
        for name, found in bins.items():
            count, predicted, observed = found.T
            there = count > 0
            axes.plot(predicted[there] / count[there], observed[there] / count[there], "o-", label=name)
        axes.legend(loc="upper left")
        return figure


def roc(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - specificity and sensitivity, both [points], of every threshold; cases of equal score pass it together."""
    levels = [np.inf, *np.unique(scores)[::-1]]
    called = np.array([scores >= level for level in levels])
    return called[:, labels == 0].mean(axis=1), called[:, labels == 1].mean(axis=1)


def square(x: str, y: str) -> tuple[Figure, Axes]:
    """Axes from 0 to 1 with the diagonal, which is chance."""
    figure = Figure(figsize=(SIDE, SIDE), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="_chance")
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


def _arms(cases: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    told = local_at_home(cases[cases["score"].notna()])
    for arm, part in told.groupby("arm", sort=False):
        yield str(arm), part["score"].to_numpy(float), part["label"].to_numpy(float).astype(int)

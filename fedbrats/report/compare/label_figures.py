"""Figures over the methods of a sweep of classifications: ROC curves and AUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedbrats.report.cells import shorten
from fedbrats.report.sections.classification_figures import roc, square
from fedbrats.report.style import GREY, LINE_COLOURS, new_figure, styled

BESIDE = 1e-9  # a step of a ROC curve is looked at just before and just after it
Told = Sequence[tuple[np.ndarray, np.ndarray]]  # of each job the scores and labels, both [cases]


def mean_roc(told: Told) -> np.ndarray:
    """[points, 4]: 1 - specificity, then mean, least and most sensitivity of several models there.

    Vertical averaging (Fawcett, Pattern Recognition Letters 2006, section 6); the area below it is the mean AUC. Models
    whose cases have one label only have no curve.
    """
    curves = [roc(scores, labels) for scores, labels in told if 0 < labels.sum() < len(labels)]
    steps = np.unique(np.concatenate([x for x, _ in curves]) if curves else np.array([]))
    places = np.sort(np.concatenate([steps - BESIDE, steps + BESIDE]))
    if not curves:
        return np.empty((0, 4))
    high = np.array([np.interp(places, x, y, left=0.0) for x, y in curves])
    return np.stack([places.clip(0, 1), high.mean(axis=0), high.min(axis=0), high.max(axis=0)], axis=1)


def roc_over_jobs(told: Mapping[str, Told]) -> Figure:
    """Mean ROC curve of every method; bands: least to most over its jobs."""
    with styled():
        figure, axes = square("1 - specificity", "Sensitivity")
        figure.set_size_inches(6.4, 4.2)
        for place, (name, jobs) in enumerate(told.items()):
            colour, (x, mean, least, most) = LINE_COLOURS[place % len(LINE_COLOURS)], mean_roc(jobs).T
            axes.fill_between(x, least, most, color=colour, alpha=0.15, lw=0)
            axes.plot(x, mean, color=colour, label=shorten(name, 40))
        figure.legend(loc="outside right upper")
        return figure


def auc_figure(found: pd.DataFrame) -> Figure:
    """AUC of every method with its interval over cases and institutions; a line at chance.

    Args:
        found: rows against chance of `studies.classified.paired.tests`.
    """
    with styled():
        figure = new_figure(6.4, 1.1 + 0.34 * len(found))
        axes, value = figure.subplots(), 0.5 + found["difference"]
        reach = [
            (found["difference"] - found["low"]).fillna(0),
            (found["high"] - found["difference"]).fillna(0),
        ]
        bars = np.clip(np.array([part.to_numpy(float) for part in reach]), 0, None)
        axes.errorbar(value, range(len(found)), xerr=bars, fmt="o", color=LINE_COLOURS[0], capsize=2.5)
        axes.axvline(0.5, color=GREY, linestyle=":")
        axes.set_yticks(range(len(found)), [shorten(name, 40) for name in found["method"]])
        axes.set(xlabel="AUC", xlim=(min(0.45, float((value - bars[0]).min()) - 0.02), 1.02))
        axes.invert_yaxis()
        return figure

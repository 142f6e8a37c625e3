"""The histograms of a survey as heat maps, one for each, with a row for every site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedbrats.data.survey import FOR_PLAN
from fedbrats.report.style import new_figure, styled

COLUMNS = 4


def survey_figure(found: Mapping[str, Any]) -> Figure:
    """Share of each site's patients in every bin.

    Args:
        found: `survey.json`.
    """
    bins = {
        name: names for name, names in found["bins"].items() if name not in FOR_PLAN
    }  # whose bins are too fine
    sites = sorted(found["sites"])
    rows = math.ceil(len(bins) / COLUMNS)
    with styled():
        figure = new_figure(12.0, rows * (1.5 + 0.18 * len(sites)))
        axes = figure.subplots(rows, COLUMNS, squeeze=False)
        for axis in axes.flat[len(bins) :]:
            axis.set_axis_off()
        for place, (axis, (name, names)) in enumerate(zip(axes.flat, bins.items())):
            counts = np.array([found["sites"][site][name] for site in sites], float)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axis.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1)
            axis.set_title(name, loc="left", fontsize=8)
            axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=6)
            axis.set_yticks(
                range(len(sites)), sites if place % COLUMNS == 0 else [""] * len(sites), fontsize=7
            )
            axis.grid(visible=False)
    return figure

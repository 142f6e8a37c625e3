"""The same test cases as several methods segmented them, beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedbrats.report.cells import shorten
from fedbrats.report.sections.overlays_figures import brain_box, panel
from fedbrats.report.style import GREY, LABEL_COLOURS, new_figure, styled


@dataclass(frozen=True)
class Shown:
    """A row: what stands beside it, the slice (`read_slice`) of a method, and the predictions of all by method."""

    title: str
    arrays: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]


def panel_figure(rows: Sequence[Shown]) -> Figure:
    """T1ce of every case with the reference and with the prediction of every method, cropped to the brain."""
    names = list(rows[0].predictions)
    with styled():
        figure = new_figure(2.1 * (1 + len(names)), 2.3 * len(rows) + 0.5)
        axes = figure.subplots(len(rows), 1 + len(names), squeeze=False)
        for line, row in zip(axes, rows):
            t1ce, truth = row.arrays["t1ce"], row.arrays["truth"]
            box = brain_box(t1ce)
            aspect = float(row.arrays["spacing"][1] / row.arrays["spacing"][0])
            pictures = {"Reference": truth, **row.predictions}
            for axis, (name, labels) in zip(line, pictures.items()):
                panel(axis, t1ce[box], labels[box], aspect)
                if row is rows[0]:
                    axis.set_title(shorten(name, 22), fontsize=8)
            line[0].text(
                -0.04,
                0.5,
                row.title,
                transform=line[0].transAxes,
                rotation=90,
                ha="right",
                va="center",
                fontsize=8,
            )
        patches = [Patch(facecolor=c, edgecolor=GREY, label=name) for name, c in LABEL_COLOURS.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=3)
    return figure

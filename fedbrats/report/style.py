"""Colours and small helpers of the figures. All colours are of the Okabe-Ito palette, safe for colour-blind readers."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from fedbrats.report.cells import shorten
from fedbrats.tasks.segmentation import REGIONS

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#8A8A8A"

ARM_COLOURS = {
    "federated": BLUE,
    "personal": SKY,
    "pooled": VERMILION,
    "local": GREEN,
    "local_elsewhere": PURPLE,
    "floor": ORANGE,
}
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # of anything else that is counted
REGION_COLOURS = dict(zip(REGIONS, (BLUE, VERMILION, GREEN), strict=True))
SPLIT_COLOURS = {"train": BLUE, "val": SKY, "test": ORANGE}
LABEL_COLOURS = {"NCR": VERMILION, "ED": SKY, "ET": YELLOW}  # on grey slices

RC = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "fedbrats",  # the same run gives the same bytes
    "text.parse_math": False,  # names are foreign text: x$_$y is no formula
}


def styled() -> rc_context:
    """Context in which a figure is drawn."""
    return rc_context(RC)


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that belongs to no window (Agg), so that no global pyplot state is left behind."""
    return Figure(figsize=(width, height), layout="constrained")


class _Numbers(LogFormatter):
    """The labels that matplotlib chooses on a logarithmic axis, as numbers and not as formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def numbers_on_log(axis: Axis) -> None:
    """Label a logarithmic axis with numbers, as formulas are not drawn."""
    axis.set_major_formatter(_Numbers())
    axis.set_minor_formatter(_Numbers())


def site_labels(sites: list[str], holdout: set[str]) -> list[str]:
    """Axis labels of institutions; held-out ones are marked as unseen."""
    return [f"{shorten(site)} (unseen)" if site in holdout else shorten(site) for site in sites]


def finite(values: object) -> np.ndarray:
    """The finite numbers of a sequence as float64."""
    array = np.asarray(values, dtype=float)
    return array[np.isfinite(array)]

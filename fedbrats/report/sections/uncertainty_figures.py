"""Figures that check the uncertainty, and what a page prints of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fedbrats.metrics.uncertainty import rejection_ratio
from fedbrats.report.sections.uncertainty_tables import (
    calibration_error,
    curves,
    most_uncertain,
    number_rows,
    read_bins,
    read_doubts,
)
from fedbrats.report.style import BLACK, GREY, REGION_COLOURS, new_figure, numbers_on_log, styled
from fedbrats.tasks import segmentation as task

WIDTH = 3.5  # inches of a panel
FIGURES = ("reliability", "retained")


def reliability_figure(bins: dict[str, pd.DataFrame]) -> Figure:
    """How often a voxel is in the region against its probability, and below how many voxels each bin has (log).

    Args:
        bins: result of `read_bins`, at least one region.
    """
    with styled():
        figure = new_figure(WIDTH * len(bins), 4.2)
        upper, lower = figure.subplots(2, len(bins), sharex=True, squeeze=False, height_ratios=[3, 1])
        for above, below, (region, rows) in zip(upper, lower, bins.items()):
            colour = REGION_COLOURS[region]
            above.plot([0, 1], [0, 1], "--", lw=1, color=GREY)
            above.plot(rows["mean_probability"], rows["observed"], "o-", ms=4, lw=1.6, color=colour)
            above.set_title(f"{region}, calibration error {calibration_error(rows):.4f}", loc="left")
            above.set_xlim(-0.03, 1.03)
            above.set_ylim(-0.03, 1.03)
            widths = rows["bin_high"] - rows["bin_low"]
            below.bar(rows["bin_low"], rows["voxels"], widths * 0.9, align="edge", color=colour, alpha=0.5)
            below.set_yscale("log")
            numbers_on_log(below.yaxis)
            below.set_ylim(bottom=0.5)
            below.yaxis.set_major_locator(LogLocator(numticks=4))
            below.minorticks_off()
            below.set_xlabel("Probability")
        upper[0].set_ylabel("Share truly in the region")
        lower[0].set_ylabel("Voxels")
    return figure


def retained_figure(doubts: pd.DataFrame) -> Figure:
    """Mean score of the cases that stay when the most uncertain are referred, with the best order and blind choice.

    Args:
        doubts: result of `read_doubts`, at least one case with a score.
    """
    lines = curves(doubts)
    with styled():
        figure = new_figure(WIDTH * len(lines), 3.4)
        axes = figure.subplots(1, len(lines), squeeze=False)[0]
        for axis, (region, curve) in zip(axes, lines.items()):
            _retained_panel(axis, region, curve)
        axes[0].set_ylabel(f"Mean {task.MAIN_TITLE} of the retained cases")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if len(lines) == 1 else 3)
    return figure


def _retained_panel(axis: Axes, region: str, curve: pd.DataFrame) -> None:
    share = 100 * curve["share"]
    style = {"marker": ".", "ms": 5, "lw": 1.6}
    axis.plot(
        share, curve["oracle"], "--", lw=1.2, color=GREY, label="worst referred first (needs the truth)"
    )
    axis.plot(share, curve["mean_score"], color=REGION_COLOURS[region], label="by uncertainty", **style)
    axis.plot(share, curve["random"], ":", lw=1.4, color=BLACK, label="blind choice")
    ratio = rejection_ratio(curve)
    gain = "" if pd.isna(ratio) else f", gain {ratio:.2f}"
    axis.set_title(f"{region}, n = {len(curve)}{gain}", loc="left")
    axis.set_xlim(-3, 103)
    axis.set_xlabel("Cases referred to a human, %")


def uncertainty_figures(doubts: pd.DataFrame, bins: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """`FIGURES` by name; one that has nothing to show is left out."""
    out = {}
    if bins:
        out["reliability"] = reliability_figure(bins)
    if doubts[task.MAIN].notna().any():
        out["retained"] = retained_figure(doubts)
    return out


def uncertainty_context(folder: Path, scores: str) -> dict[str, Any] | None:
    """What a page prints of the uncertainty, figures as Figure; None without any.

    Raises:
        RunFolderError: a file cannot be read.
    """
    doubts, bins = read_doubts(folder, scores), read_bins(folder)
    if not len(doubts) and not bins:
        return None
    numbers = number_rows(doubts, bins)
    return {
        "arm": str(doubts["arm"].iloc[0]).split(":")[0] if len(doubts) else "",
        "regions": [row["region"] for row in numbers],
        "numbers": numbers,
        "cases": most_uncertain(doubts),
        "sites": bool(doubts["site"].any()),
        "count": doubts.groupby(["site", "case"]).ngroups,
        "figures": uncertainty_figures(doubts, bins),
    }

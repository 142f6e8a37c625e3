"""Figures of the partition: cases, tumour volumes and intensities per institution."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedbrats.data.cases import MODALITIES
from fedbrats.report.style import BLUE, REGION_COLOURS, SPLIT_COLOURS, new_figure, site_labels, styled
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

SPLITS = ("train", "val", "test")
MARKERS = dict(zip(task.REGIONS, ("o", "s", "^")))
MODALITY_TITLES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}


def partition_frame(run: RunFolder) -> pd.DataFrame:
    """One row per institution in report order: `site`, `holdout`, cases per split and the stored statistics."""
    stored = {str(row["site"]): row for row in run.partition.get("table", [])}
    rows = []
    for site in run.partition.get("sites", []):
        name = str(site["name"])
        counts = {split: len(site.get(split, ())) for split in SPLITS}
        rows.append({**stored.get(name, {}), "site": name, "holdout": bool(site.get("holdout")), **counts})
    order = {name: place for place, name in enumerate(run.sites)}
    rows.sort(key=lambda row: order[row["site"]])
    frame = pd.DataFrame(rows, columns=None if rows else ["site", "holdout", *SPLITS])
    return frame.assign(cases=frame[list(SPLITS)].sum(axis=1))


def partition_figure(run: RunFolder) -> Figure:
    """Cases per institution stacked by split, and mean tumour volume per region with its standard deviation (mL)."""
    frame = partition_frame(run)
    with styled():
        figure = new_figure(10.5, _height(len(frame)))
        left, right = figure.subplots(1, 2, sharey=True)
        start = frame["cases"] * 0
        for split in SPLITS:
            left.barh(
                range(len(frame)),
                frame[split],
                left=start,
                color=SPLIT_COLOURS[split],
                label=split,
                height=0.72,
            )
            start = start + frame[split]
        for row, total in enumerate(frame["cases"]):
            left.text(total, row, f" {total}", va="center", fontsize=8)
        left.set_xlim(0, max(float(frame["cases"].max()), 1) * 1.12)
        left.set_title("Cases", loc="left")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
        for place, region in enumerate(task.REGIONS):
            name = f"{region.lower()}_ml"
            _dots(right, frame, name, (place - 1) * 0.22, REGION_COLOURS[region], MARKERS[region], region)
        right.set_title("Tumour volume in mL, mean ± SD over cases", loc="left")
        right.set_xlim(left=0)
        if right.get_legend_handles_labels()[0]:  # across hospitals, volumes stay at the sites
            right.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
        _site_axis(left, frame, run)
        right.grid(axis="y", visible=False)
    return figure


def intensity_figure(run: RunFolder) -> Figure:
    """Raw intensity of the brain per institution and modality: mean ± SD over non-zero voxels, arbitrary units."""
    frame = partition_frame(run)
    with styled():
        figure = new_figure(10.5, _height(len(frame)))
        axes = figure.subplots(1, len(MODALITIES), sharey=True)
        for axis, modality in zip(axes, MODALITIES):
            _dots(axis, frame, modality, 0.0, BLUE, "o", modality)
            axis.set_title(MODALITY_TITLES[modality], loc="left")
            axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
            axis.xaxis.get_major_locator().set_params(nbins=4)
            axis.grid(axis="y", visible=False)
        _site_axis(axes[0], frame, run)
        figure.supxlabel("Raw intensity (arbitrary units), mean ± SD", fontsize=9)
    return figure


def _height(sites: int) -> float:
    return 1.4 + 0.3 * max(sites, 2)


def _site_axis(axis: Axes, frame: pd.DataFrame, run: RunFolder) -> None:
    axis.grid(axis="y", visible=False)
    axis.set_yticks(range(len(frame)), site_labels(list(frame["site"]), run.holdout))
    axis.set_ylim(len(frame) - 0.4, -0.6)


def _dots(
    axis: Axes, frame: pd.DataFrame, name: str, shift: float, colour: str, marker: str, label: str
) -> None:
    """Mean with its standard deviation per institution; institutions without a value stay empty."""
    if f"{name}_mean" not in frame:
        axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center", color="#8A8A8A")
        return
    mean = pd.to_numeric(frame[f"{name}_mean"], errors="coerce")
    spread = pd.to_numeric(frame.get(f"{name}_sd", mean * 0), errors="coerce").fillna(0)
    places = pd.Series(range(len(frame)), index=frame.index, dtype=float) + shift
    known = mean.notna()
    axis.errorbar(
        mean[known],
        places[known],
        xerr=spread[known],
        fmt=marker,
        ms=4.5,
        lw=1.1,
        color=colour,
        label=label,
        capsize=0,
    )

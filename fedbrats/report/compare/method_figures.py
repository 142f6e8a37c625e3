"""Figures over the methods of a sweep: curves, institutions, cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedbrats.report.cells import shorten
from fedbrats.report.style import BLACK, LINE_COLOURS, new_figure, styled
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.task import Task

STYLES = ("-", "--", ":")  # once the colours are used up


def curve_figure(curves: pd.DataFrame, axis: str, title: str, of: Task = task.SEGMENTATION) -> Figure:
    """Validation over `axis`, a line per method, a panel per region; bands: least to most over the jobs.

    Args:
        curves: of `studies.curves.method_curves`.
        axis: a column of it; title: what stands below the panels.
        of: the task of the jobs.
    """
    regions, methods = of.in_order(set(curves["region"])), list(dict.fromkeys(curves["method"]))
    with styled():
        figure = new_figure(3.6 * max(len(regions), 2), 3.1 + 0.2 * ((len(methods) + 1) // 2))
        axes = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
        for panel, region in zip(axes, regions):
            panel.set_title(region, loc="left", fontweight="bold")
            panel.set_xlabel(title)
            for place, method in enumerate(methods):
                part = curves[(curves["method"] == method) & (curves["region"] == region)].dropna(
                    subset=[axis]
                )
                if len(part):
                    colour, style = (
                        LINE_COLOURS[place % len(LINE_COLOURS)],
                        STYLES[place // len(LINE_COLOURS) % 3],
                    )
                    panel.fill_between(
                        part[axis], part["least"], part["most"], color=colour, alpha=0.15, lw=0
                    )
                    panel.plot(
                        part[axis], part["mean"], style, color=colour, lw=1.6, label=shorten(method, 40)
                    )
        axes[0].set_ylabel(f"Validation {of.title}")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 2))
    return figure


def heat_map(means: pd.DataFrame, region: str) -> Figure:
    """Mean of the main score of a region by institution and method, as numbers on colour.

    Args:
        means: of `studies.methods.institution_means`.
        region: whose numbers are shown.
    """
    part = means[means["region"] == region]
    wide = part.pivot_table(index="method", columns="site", values=task.MAIN, sort=False)
    return matrix_figure(wide, f"{region} {task.MAIN_TITLE}", "Institution", "")


def matrix_figure(wide: pd.DataFrame, title: str, below: str, beside: str) -> Figure:
    """A table of numbers between 0 and 1 as colour with the numbers on it; NaN stays white."""
    values = wide.to_numpy(float)
    with styled():
        figure = new_figure(2.6 + 0.62 * wide.shape[1], 1.3 + 0.34 * wide.shape[0])
        axis = figure.subplots()
        image = axis.imshow(values, cmap="cividis", aspect="auto")
        axis.set_xticks(
            range(wide.shape[1]), [shorten(str(name), 14) for name in wide.columns], rotation=45, ha="right"
        )
        axis.set_yticks(range(wide.shape[0]), [shorten(str(name), 40) for name in wide.index])
        axis.set_xlabel(below)
        axis.set_ylabel(beside)
        axis.set_title(title, loc="left", fontweight="bold")
        axis.grid(False)
        middle = np.nanmean([np.nanmin(values), np.nanmax(values)]) if np.isfinite(values).any() else 0.0
        for row, column in zip(*np.nonzero(np.isfinite(values))):
            colour = "white" if values[row, column] < middle else BLACK
            axis.text(
                column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8
            )
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def box_figure(scores: dict[str, pd.DataFrame]) -> Figure:
    """Main score of the test cases, a box per method, a panel per region; whiskers: 5 to 95 %, a dot per case beyond.

    Args:
        scores: by method, of `Method.scores`.
    """
    regions = task.in_order({r for table in scores.values() for r in table.index.get_level_values("region")})
    names = list(scores)
    with styled():
        figure = new_figure(3.4 * max(len(regions), 2), 1.2 + 0.36 * len(names))
        axes = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
        for panel, region in zip(axes, regions):
            values = [_of_region(table, region) for table in scores.values()]
            panel.boxplot(
                values,
                orientation="horizontal",
                whis=(5, 95),
                flierprops={"ms": 2.5},
                medianprops={"color": BLACK},
            )
            panel.set_title(region, loc="left", fontweight="bold")
            panel.set_xlabel(task.MAIN_TITLE)
            panel.set_yticks(range(1, len(names) + 1), [shorten(name, 40) for name in names])
        axes[0].invert_yaxis()
    return figure


def _of_region(scores: pd.DataFrame, region: str) -> pd.Series:
    """Main scores of a region, none where the network does not predict it."""
    return scores.loc[scores.index.get_level_values("region") == region, task.MAIN].dropna()

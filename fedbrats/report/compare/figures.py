"""Figures over the jobs of a sweep: main score over epsilon, and gain over the shift between scanners."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fedbrats.report.epsilon import epsilon_text
from fedbrats.report.style import GREY, LINE_COLOURS, new_figure, styled
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.task import Task

GAP = 2.5  # infinity lies at this many times the largest epsilon


def epsilon_curve(curve: pd.DataFrame, of: Task = task.SEGMENTATION) -> Figure:
    """Mean of the main score over epsilon (log, infinity at the right edge), a panel per region; bars: over jobs.

    Args:
        curve: columns line, epsilon, region, mean, sd, at least one finite epsilon.
        of: the task of the jobs.
    """
    largest = curve.loc[np.isfinite(curve["epsilon"]), "epsilon"].max()
    ticks = sorted({round(epsilon, 2) for epsilon in curve["epsilon"] if np.isfinite(epsilon)})
    ends = [GAP * largest] if np.isinf(curve["epsilon"]).any() else []
    with styled():
        figure, axes = _panels(curve, of)
        for axis, region in zip(axes, of.in_order(set(curve["region"]))):
            for colour, line in zip(_colours(curve["line"]), dict.fromkeys(curve["line"])):
                part = curve[(curve["line"] == line) & (curve["region"] == region)]
                place = part["epsilon"].replace(np.inf, GAP * largest)
                _bars(axis, place, part["mean"], (part["sd"], part["sd"]), colour, line or "All jobs")
            axis.set_xscale("log")
            axis.set_xticks([*_apart(ticks), *ends])
            axis.set_xticklabels(
                [*(epsilon_text(tick).removesuffix(".00") for tick in _apart(ticks)), *["∞"] * len(ends)]
            )
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.minorticks_off()
            axis.set_xlabel("Epsilon")
        axes[0].set_ylabel(f"Mean {of.compared[1]}")
        _legend(figure, axes[0])
    return figure


def _apart(ticks: list[float]) -> list[float]:
    """Ticks that leave room for their labels on a logarithmic axis."""
    out: list[float] = []
    for tick in ticks:
        if not out or tick > 1.35 * out[-1]:
            out.append(tick)
    return out


def gain_figure(gain: pd.DataFrame) -> Figure:
    """Gain in the main score over the shift, a line per method, a panel per region.

    Args:
        gain: columns method, over, setting, shift, region, gain and the intervals over seeds and over cases, of which
            the second stands in where there is no first.
    """
    several = gain["over"].nunique() > 1
    names = gain["method"] + (" over " + gain["over"] if several else "")
    names = names + gain["setting"].map(lambda text: f", {text}" if text else "")
    gain = gain.assign(line=names)
    with styled():
        figure, axes = _panels(gain, task.SEGMENTATION)
        lines = list(dict.fromkeys(gain["line"]))
        step = np.diff(np.unique(gain["shift"].dropna())).min() if gain["shift"].nunique() > 1 else 1.0
        for axis, region in zip(axes, task.in_order(set(gain["region"]))):
            axis.axhline(0, color=GREY, lw=1)
            for place, (colour, line) in enumerate(zip(_colours(gain["line"]), lines)):
                part = gain[(gain["line"] == line) & (gain["region"] == region)].sort_values("shift")
                low = part["gain"] - part["seeds_low"].fillna(part["cases_low"])
                high = part["seeds_high"].fillna(part["cases_high"]) - part["gain"]
                aside = 0.05 * step * (place - (len(lines) - 1) / 2)  # or the bars would hide each other
                _bars(axis, part["shift"] + aside, part["gain"], (low, high), colour, line)
            axis.set_xticks(np.unique(gain["shift"].dropna()))
            axis.set_xlabel("Shift between scanners")
        axes[0].set_ylabel(f"Gain in {task.MAIN_TITLE}{'' if several else ' over ' + gain['over'].iloc[0]}")
        _legend(figure, axes[0])
    return figure


def _panels(frame: pd.DataFrame, of: Task) -> tuple[Figure, np.ndarray]:
    regions = of.in_order(set(frame["region"]))
    lines = frame["line"].nunique()
    figure = new_figure(3.6 * max(len(regions), 2), 3.1 + 0.2 * ((lines + 1) // 2))
    axes = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
    for axis, region in zip(axes, regions):
        axis.set_title(region, loc="left", fontweight="bold")
    return figure, axes


def _colours(lines: pd.Series) -> list[str]:
    return [LINE_COLOURS[place % len(LINE_COLOURS)] for place in range(lines.nunique())]


def _bars(
    axis: Axes,
    place: pd.Series,
    value: pd.Series,
    reach: tuple[pd.Series, pd.Series],
    colour: str,
    label: str,
) -> None:
    below, above = (part.fillna(0).clip(lower=0) for part in reach)
    style = {"marker": "o", "ms": 4, "lw": 1.6, "capsize": 2.5, "elinewidth": 1}
    axis.errorbar(place, value, yerr=[below, above], color=colour, label=label, **style)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 2))

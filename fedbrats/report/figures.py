"""Learning curves, box plots and cost of a run (matplotlib without a display); each function returns a Figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedbrats.metrics.table import Facts
from fedbrats.report.arms import arm_rank, arm_title, merge_local_arms
from fedbrats.report.style import ARM_COLOURS, BLACK, GREY, finite, new_figure, site_labels, styled
from fedbrats.runs.rounds import AT_THE_END
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

FEW = 5  # cases below which an institution gets no box
CURVE_COLUMNS = ("loss", *task.COLUMNS.values())


def curve_points(rounds: pd.DataFrame) -> pd.DataFrame:
    """Mean over the sites of each arm, round and phase, weighted by cases.

    Only replies that are "ok" count; local models are taken together as arm "local", with the lowest and highest
    site in the columns `<name>_min` and `<name>_max`.

    Args:
        rounds: rows with the columns of `rounds.csv`.

    Returns:
        Columns arm, round, phase, then loss and the main scores `task.COLUMNS` (0..1), each with `_min` and `_max`.
    """
    good = rounds[(rounds["status"] == "ok") & rounds["phase"].isin(["train", "val"])]
    good = good.assign(arm=good["arm"].str.replace(r"^local:.*", "local", regex=True))
    rows = []
    for (arm, number, phase), part in good.groupby(["arm", "round", "phase"], sort=True):
        row: dict[str, object] = {"arm": arm, "round": number, "phase": phase}
        for name in CURVE_COLUMNS:
            known = part[part[name].notna()]
            weights = known["cases"].fillna(0).clip(lower=0)
            total = weights.sum()
            mean = float((known[name] * weights).sum() / total) if total > 0 else known[name].mean()
            row |= {name: mean, f"{name}_min": known[name].min(), f"{name}_max": known[name].max()}
        rows.append(row)
    columns = ["arm", "round", "phase"] + [f"{n}{end}" for n in CURVE_COLUMNS for end in ("", "_min", "_max")]
    return pd.DataFrame(rows, columns=columns)


def learning_curves(run: RunFolder) -> Figure:
    """Training and validation loss and main score of the validation per region over the rounds, one colour per arm.

    Rounds whose aggregation failed are grey bands; a triangle below marks a round that misses a reply.
    """
    points = curve_points(run.rounds)
    with styled():
        panels = {"loss": "Loss (line: training, dashed: validation)"}
        panels |= {task.COLUMNS[r]: f"Validation {task.MAIN_TITLE} {r}" for r in run.regions}
        lines = (len(panels) + 1) // 2
        figure = new_figure(10.5, 3.2 * lines)
        axes = figure.subplots(lines, 2, sharex=True, squeeze=False)
        arms = sorted(set(points["arm"]), key=arm_rank)
        for axis, (name, title) in zip(axes.flat, panels.items()):
            _curve_panel(axis, points, arms, name)
            axis.set_title(title, loc="left")
            _mark_failures(axis, run.rounds)
        for axis in axes[-1]:
            axis.set_xlim(run.rounds["round"].min() - 0.5, run.rounds["round"].max() + 0.5)
            axis.set_xlabel("Round")
            axis.xaxis.get_major_locator().set_params(integer=True)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        unique = dict(zip(reversed(labels), reversed(handles)))  # the first line of a label: the solid one
        unique = dict(reversed(unique.items()))
        if unique:
            figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique))
    return figure


def _curve_panel(axis: Axes, points: pd.DataFrame, arms: list[str], name: str) -> None:
    drawn = False
    for phase in ("train", "val") if name == "loss" else ("val",):
        for arm in arms:
            line = points[(points["arm"] == arm) & (points["phase"] == phase) & points[name].notna()]
            if not len(line):
                continue
            drawn = True
            style = "--" if name == "loss" and phase == "val" else "-"
            colour = ARM_COLOURS.get(arm, GREY)
            label = "Local models, mean and range" if arm == "local" else arm_title(arm)
            axis.plot(line["round"], line[name], style, marker="o", ms=3, lw=1.6, color=colour, label=label)
            if arm == "local":
                low, high = line[f"{name}_min"], line[f"{name}_max"]
                axis.fill_between(line["round"], low, high, color=colour, alpha=0.13, lw=0)
    if not drawn:
        axis.text(0.5, 0.5, "no values recorded", transform=axis.transAxes, ha="center", color=GREY)
    if name != "loss":
        axis.set_ylim(-0.03, 1.03)


def _mark_failures(axis: Axes, rounds: pd.DataFrame) -> None:
    bad = rounds[rounds["status"] != "ok"]
    whole = (bad["phase"] == "round") & ~bad["arm"].str.startswith("local:")
    failed = set(bad[whole]["round"])
    label = "Failed round"
    for number in sorted(failed):
        axis.axvspan(number - 0.4, number + 0.4, color="#BBBBBB", alpha=0.55, lw=0, label=label)
    partial = sorted(set(bad[~whole & ~bad["phase"].isin(AT_THE_END)]["round"]))
    if partial:
        axis.plot(
            partial,
            [0.02] * len(partial),
            "^",
            ms=6,
            color="#333333",
            transform=axis.get_xaxis_transform(),
            label="Round with a failed reply",
            clip_on=False,
        )


def metric_boxes(run: RunFolder, metric: str) -> Figure:
    """Box plots of a metric of the test cases: one row per institution, one column per region, one box per arm.

    Boxes are quartiles with the median, whiskers reach 1.5 interquartile ranges, every case is a dot. With fewer
    than 5 cases only the dots and the median are drawn. Failed cases count with the worst score.

    Args:
        metric: of `task.SHOWN`; a distance is logarithmic above 1 mm.
    """
    cases = merge_local_arms(run.cases, run.metrics)
    cases = cases[cases["arm"] != "local_elsewhere"]
    arms = sorted(set(cases["arm"]), key=arm_rank)
    sites = [site for site in run.sites if site in set(cases["site"])]
    labels = [
        f"{label}, n = {cases[cases['site'] == site]['case'].nunique()}"
        for site, label in zip(sites, site_labels(sites, run.holdout))
    ]
    groups = {key: finite(part[metric]) for key, part in cases.groupby(["region", "site", "arm"], sort=True)}
    with styled():
        figure = new_figure(10.5, 1.5 + len(sites) * max(0.34, 0.16 * len(arms) + 0.06))
        axes = figure.subplots(1, len(run.regions), sharey=True, squeeze=False)[0]
        height = 0.84 / max(len(arms), 1)
        for axis, region in zip(axes, run.regions):
            for slot, arm in enumerate(arms):
                places = np.arange(len(sites)) + (slot - (len(arms) - 1) / 2) * height
                values = [groups.get((region, site, arm), np.empty(0)) for site in sites]
                _boxes(axis, values, places, height, ARM_COLOURS.get(arm, GREY))
            _scale(axis, run.shown[metric])
            axis.set_title(region, loc="left", fontweight="bold")
            for row in range(1, len(sites)):
                axis.axhline(row - 0.5, color="#D0D0D0", lw=0.6)
        axes[0].set_yticks(range(len(sites)), labels)
        axes[0].set_ylim(len(sites) - 0.5, -0.5)
        patches = [Patch(color=ARM_COLOURS.get(arm, GREY), label=arm_title(arm)) for arm in arms]
        figure.legend(handles=patches, loc="outside upper center", ncols=max(len(arms), 1))
    return figure


def _scale(axis: Axes, facts: Facts) -> None:
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(facts.heading)
    if not facts.unit:
        axis.set_xlim(-0.03, 1.03)
        return
    axis.set_xscale("symlog", linthresh=1, linscale=0.4)
    axis.set_xlim(-0.1, 500)
    axis.set_xticks([0, 1, 3, 10, 30, 100, 374], ["0", "1", "3", "10", "30", "100", "374"])
    axis.minorticks_off()


def _boxes(axis: Axes, values: list[np.ndarray], places: np.ndarray, height: float, colour: str) -> None:
    """One arm in one region: a box per institution, or the median alone where there are few cases; dots for all."""
    line = {"color": colour, "lw": 0.8}
    boxed = [place for place, found in enumerate(values) if len(found) >= FEW]
    if boxed:
        axis.boxplot(
            [values[place] for place in boxed],
            positions=places[boxed],
            widths=height * 0.8,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour, "lw": 0.8},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": colour, "lw": 2},
        )
    few = [place for place, found in enumerate(values) if 0 < len(found) < FEW]
    axis.plot([np.median(values[place]) for place in few], places[few], "|", color=colour, ms=9, mew=2)
    heights = np.repeat(places, [len(found) for found in values])
    axis.plot(np.concatenate(values), heights, ".", color=colour, ms=5, alpha=0.65, mec="none")


def cost_figure(run: RunFolder) -> Figure:
    """Seconds at the sites and megabytes (both directions) of every round, one line per arm.

    A dotted black line is the training phase on the clock, which all arms share.
    """
    rounds = run.rounds[~run.rounds["phase"].isin(AT_THE_END)]
    rounds = rounds.assign(arm=rounds["arm"].str.replace(r"^local:.*", "local", regex=True))
    arms = sorted(set(rounds["arm"]), key=arm_rank)
    with styled():
        figure = new_figure(10.5, 2.9)
        axes = figure.subplots(1, 2)
        for arm in arms:
            part = rounds[(rounds["arm"] == arm) & (rounds["phase"] != "round")]
            seconds = part.groupby("round")["seconds"].sum()
            megabytes = (
                (part["bytes_down"].fillna(0) + part["bytes_up"].fillna(0)).groupby(part["round"]).sum()
            )
            style = {"marker": "o", "ms": 3, "lw": 1.5, "color": ARM_COLOURS.get(arm, GREY)}
            label = "Local models" if arm == "local" else arm_title(arm)
            axes[0].plot(seconds.index, seconds, label=label, **style)
            axes[1].plot(megabytes.index, megabytes / 1e6, **style)
        clock = rounds[rounds["phase"] == "round"].groupby("round")["seconds"].max()
        axes[0].plot(clock.index, clock, ":", color=BLACK, lw=1.5, label="Training on the clock, all arms")
        titles = ("Seconds per round, added up over sites", "Megabytes per round, both directions")
        for axis, title in zip(axes, titles):
            axis.set_title(title, loc="left")
            axis.set_xlabel("Round")
            axis.set_ylim(bottom=0)
            axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", ncols=len(arms) + 1)
    return figure

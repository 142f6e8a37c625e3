"""Figures of differential privacy, and what the page prints of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedbrats.report.cells import shorten
from fedbrats.report.sections.privacy_tables import (
    central_row,
    privacy_sentences,
    recompute_lines,
    site_rows,
    step_rows,
    warnings,
)
from fedbrats.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LINE_COLOURS,
    VERMILION,
    new_figure,
    numbers_on_log,
    styled,
)
from fedbrats.runs.privacy_files import (
    CentralBudget,
    Privacy,
    read_central_rounds,
    read_rounds,
    read_steps,
)
from fedbrats.runs.reading import natural
from fedbrats.runs.run_folder import RunFolder

WIDE = 20  # largest over smallest epsilon above which their axis is logarithmic
PANELS = 4  # institutions side by side
DASHES = ("-", "--", ":", "-.")


def epsilon_figure(rounds: pd.DataFrame, privacy: Privacy) -> Figure:
    """Epsilon (RDP) of everything in an institution's ledger after each round; dashes: budgets, crosses: stopped.

    Args:
        rounds: result of `read_rounds`, at least one row.
        privacy: whose sites may have budgets.
    """
    sites = sorted(set(rounds["site"]), key=natural)
    stops = {site.site for site in privacy.sites if site.stopped}
    with styled():
        figure = new_figure(10.5, max(3.2, 0.5 + 0.19 * len(sites)))
        axis = figure.subplots()
        for place, site in enumerate(sites):
            part = rounds[rounds["site"] == site].sort_values("round", kind="stable")
            colour = LINE_COLOURS[place % len(LINE_COLOURS)]
            dash = DASHES[place // len(LINE_COLOURS) % len(DASHES)]
            axis.plot(
                part["round"],
                part["epsilon"],
                dash,
                marker="o",
                ms=3,
                lw=1.6,
                color=colour,
                label=shorten(site),
            )
            stopped = site in stops and part["round"].eq(part["round"].max())
            bad = part[(part["status"] != "ok") | stopped]
            axis.plot(bad["round"], bad["epsilon"], "x", ms=8, mew=2, color=colour)
        budgets = sorted({site.budget for site in privacy.sites if site.budget is not None})
        for place, budget in enumerate(budgets):
            label = "Budget" if place == 0 else None
            axis.axhline(budget, ls=(0, (6, 3)), lw=1, color=BLACK, label=label)
        if rounds["epsilon"].max() > WIDE * rounds["epsilon"].min() > 0:
            axis.set_yscale("log")
            numbers_on_log(axis.yaxis)
        else:
            axis.set_ylim(bottom=0)
        _rounds_axis(axis, rounds)
        axis.set_ylabel("Epsilon (RDP)")
        figure.legend(loc="outside right upper")
    return figure


def norm_figure(steps: pd.DataFrame) -> Figure:
    """Gradient norms of the drawn patients before clipping, by step: median and largest, against the bound C (log).

    Args:
        steps: result of `read_steps`, at least one step in which somebody was drawn.
    """
    known = steps[steps["norm_max"] > 0]
    sites = sorted(set(known["site"]), key=natural)
    lines = (len(sites) + PANELS - 1) // PANELS
    with styled():
        columns = min(PANELS, len(sites))
        figure = new_figure(10.5, 0.7 + 2.0 * lines)
        axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axis, site in zip(axes.flat, sites):
            part = steps[steps["site"] == site].reset_index(drop=True)
            place = part.index + 1
            axis.plot(place, part["norm_max"], ".", ms=4, color=VERMILION, label="Largest", alpha=0.7)
            axis.plot(place, part["norm_median"], ".", ms=4, color=BLUE, label="Median", alpha=0.7)
            axis.plot(place, part["clip"], "-", lw=1.4, color=BLACK, label="Bound C", drawstyle="steps-mid")
            axis.set_yscale("log")
            numbers_on_log(axis.yaxis)
            axis.set_title(shorten(site), loc="left")
            axis.xaxis.get_major_locator().set_params(integer=True)
        for axis in axes.flat[len(sites) :]:
            axis.set_visible(False)
        for axis in axes.flat[max(0, len(sites) - columns) : len(sites)]:
            axis.set_xlabel("Step")
        for row in axes:
            row[0].set_ylabel("Gradient norm")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def central_figure(rounds: pd.DataFrame, central: CentralBudget) -> Figure:
    """Left: epsilon over the rounds. Right: norms of the mean update and of the noise added to it (log).

    Args:
        rounds: result of `read_central_rounds`, at least one row.
        central: with the bound C.
    """
    with styled():
        figure = new_figure(10.5, 3.2)
        left, right = figure.subplots(1, 2)
        style = {"marker": "o", "ms": 3, "lw": 1.6}
        left.plot(rounds["round"], rounds["epsilon"], color=BLUE, **style)
        left.set_title(f"Epsilon at delta {central.delta:g}", loc="left")
        left.set_ylim(bottom=0)
        right.plot(rounds["round"], rounds["noise_norm"], color=VERMILION, label="Noise", **style)
        right.plot(
            rounds["round"], rounds["mean_update_norm"], color=BLUE, label="Mean of clipped updates", **style
        )
        right.plot(
            rounds["round"],
            rounds["update_norm_median"],
            ":",
            color=GREEN,
            lw=1.4,
            label="Median update, unclipped",
        )
        right.axhline(central.clip, ls="--", lw=1, color=GREY, label="Bound C")
        right.set_title("Norms", loc="left")
        right.set_yscale("log")
        numbers_on_log(right.yaxis)
        for axis in (left, right):
            _rounds_axis(axis, rounds)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def _rounds_axis(axis: Axes, rounds: pd.DataFrame) -> None:
    axis.set_xlabel("Round")
    axis.set_xlim(rounds["round"].min() - 0.5, rounds["round"].max() + 0.5)
    axis.xaxis.get_major_locator().set_params(integer=True)


def privacy_context(run: RunFolder, privacy: Privacy) -> dict[str, Any]:
    """What the page prints, figures as Figure.

    Args:
        run: the run.
        privacy: result of `read_privacy`.

    Raises:
        RunFolderError: a file cannot be read.
    """
    arms = {str(arm).split(":")[0] for arm in {*run.cases["arm"], *(run.summary.get("arms") or {})}}
    out = {
        "seed": privacy.insecure_seed,
        "sentences": privacy_sentences(privacy, arms),
        "warnings": warnings(privacy),
        "not_covered": privacy.not_covered,
        "unknown": privacy.unknown,
        "faults": privacy.faults,
        "validated": any((s.validation_epsilon, s.validation_budget) != (None, None) for s in privacy.sites),
        "recompute": recompute_lines(privacy),
    }
    parts = _central_parts(run, privacy.central) if privacy.central else _site_parts(run, privacy)
    return {**out, **parts}


def _site_parts(run: RunFolder, privacy: Privacy) -> dict[str, Any]:
    rounds, steps = read_rounds(run.path), read_steps(run.path)
    figures = {}
    finite = rounds[np.isfinite(rounds["epsilon"])]
    if len(finite):
        figures["epsilon"] = epsilon_figure(finite, privacy)
    if (steps["norm_max"] > 0).any():
        figures["norms"] = norm_figure(steps)
    missing = (
        [] if len(rounds) else ["privacy_rounds.csv is missing or empty: there is no curve over the rounds."]
    )
    if infinite := sorted({*rounds["site"]} - {*finite["site"]}, key=natural):
        missing.append(f"Not in the curve, as epsilon is infinite: {', '.join(infinite)}.")
    rows = site_rows(privacy, rounds)
    return {"rows": rows, "central": {}, "steps": step_rows(steps), "figures": figures, "missing": missing}


def _central_parts(run: RunFolder, central: CentralBudget) -> dict[str, Any]:
    rounds = read_central_rounds(run.path)
    figures = {"central": central_figure(rounds, central)} if len(rounds) else {}
    missing = (
        [] if len(rounds) else ["central_rounds.csv is missing or empty: there is no curve over the rounds."]
    )
    return {
        "rows": [],
        "central": central_row(central, rounds),
        "steps": [],
        "figures": figures,
        "missing": missing,
    }

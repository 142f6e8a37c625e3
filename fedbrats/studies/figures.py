"""The figures of a sweep: those that there is something to show in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fedbrats.config.schema import FEDERATED
from fedbrats.report.compare.figures import epsilon_curve
from fedbrats.report.compare.method_figures import box_figure, curve_figure, heat_map, matrix_figure
from fedbrats.report.compare.panels import Shown, panel_figure
from fedbrats.report.sections.cross_tables import cross_matrix
from fedbrats.report.sections.overlays_figures import read_slice
from fedbrats.report.sections.partition_figures import partition_figure
from fedbrats.runs.curves import AXES
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.studies.epsilon import score_over_epsilon
from fedbrats.studies.jobs import Job
from fedbrats.studies.methods import Method
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.task import Task

MOST_METHODS = 6  # in the panels of segmentations


def figures_of(
    sweep: Path, jobs: Sequence[Job], methods: Sequence[Method], means: pd.DataFrame, curves: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    """Name and figure.

    Args:
        sweep: folder of the jobs; jobs: of it; methods: of them.
        means: of `studies.methods.institution_means`.
        curves: of `studies.curves.method_curves`.
    """
    yield from curve_figures(curves, task.SEGMENTATION)
    yield from epsilon_figures(jobs, task.SEGMENTATION)
    if task.MAIN in means and len(means):
        for region in task.in_order(set(means["region"])):
            yield f"institutions_{region.lower()}", heat_map(means, region)
    if scores := {m.name: m.scores([task.MAIN]) for m in methods if task.MAIN in m.jobs[0].scores}:
        yield "cases", box_figure(scores)
    yield from _of_runs(sweep, methods)


def curve_figures(curves: pd.DataFrame, of: Task) -> Iterator[tuple[str, Figure]]:
    """Validation over every axis on which there is more than one point."""
    for axis, title in AXES.items():
        part = curves.dropna(subset=[axis])
        if axis == "mb":
            part = part[part["mb"] > 0]
        if part.groupby("method")["round"].nunique().max() > 1:
            yield f"curves_{axis}", curve_figure(part, axis, title, of)


def epsilon_figures(jobs: Sequence[Job], of: Task) -> Iterator[tuple[str, Figure]]:
    """The score that jobs are compared by over epsilon, where one is private."""
    if len(over := score_over_epsilon(list(jobs))):
        yield "epsilon", epsilon_curve(over, of)


def partition_figures(run: RunFolder | None) -> Iterator[tuple[str, Figure]]:
    """Who has how many cases in a job that can be read."""
    if run is not None and run.partition.get("sites"):
        yield "partition", partition_figure(run)


def first_run(sweep: Path, methods: Sequence[Method]) -> RunFolder | None:
    """The first job of the first method, None where it cannot be read."""
    try:
        return read_run(sweep / (methods[0].jobs[0].name if methods else ""))
    except RunFolderError:
        return None


def _of_runs(sweep: Path, methods: Sequence[Method]) -> Iterator[tuple[str, Figure]]:
    """What the run folders themselves are read for; one that cannot be read shows nothing."""
    run = first_run(sweep, methods)
    if run is None:
        return
    yield from partition_figures(run)
    if any(str(arm).startswith("local:") for arm in run.cases["arm"]):
        for region in run.regions:
            wide = cross_matrix(run.cases, region, run.sites)
            title = f"{region} {task.MAIN_TITLE}, one job"
            yield f"cross_{region.lower()}", matrix_figure(wide, title, "Tested at", "Trained at")
    if rows := list(_panels(sweep, run, methods)):
        yield "segmentations", panel_figure(rows)


def _panels(sweep: Path, run: RunFolder, methods: Sequence[Method]) -> Iterator[Shown]:
    """Best, median and worst test case of the first method, with the predictions of the first methods."""
    cases = run.cases[(run.cases["arm"] == FEDERATED) & (run.cases["status"] == "ok")]
    ranked = cases.groupby(["site", "case"])[task.MAIN].mean().sort_values(ascending=False)
    federated = [method for method in methods if method.arm == FEDERATED][:MOST_METHODS]
    if not len(ranked) or not federated:
        return
    places = {"Best": 0, "Median": (len(ranked) - 1) // 2, "Worst": len(ranked) - 1}
    for rank, place in places.items():
        site, case = ranked.index[place]
        below = Path("sites", str(site), "slices", FEDERATED, f"{case}.npz")
        try:
            found = {m.name: read_slice(sweep / m.jobs[0].name / below) for m in federated}
        except RunFolderError:
            return
        pictures = {name: arrays["prediction"] for name, arrays in found.items()}
        first = found[federated[0].name]
        if all(picture.shape == first["truth"].shape for picture in pictures.values()):
            yield Shown(f"{rank} case, {site}", first, pictures)

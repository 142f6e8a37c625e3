"""The best, the median and the worst test case to look at."""

from __future__ import annotations

from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results
from fedbrats.report.sections.overlays_figures import choose_overlays, overlay_figure
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task


def section(results: Results) -> Section:
    """Slices of the chosen cases; a case is named in a simulation only."""
    context = {"regions": results.run.regions, "overlays": _overlays(results.run)}
    return Section("overlays", "Best, median and worst test case", context, nav="Overlays")


def _overlays(run: RunFolder) -> list[dict[str, str]]:
    out = []
    for overlay in choose_overlays(run):
        scores = ", ".join(f"{region} {overlay.scores[region]:.3f}" for region in run.regions)
        unseen = ", unseen" if overlay.site in run.holdout else ""
        name = f"{overlay.case}, " if run.simulation else ""
        title = f"{overlay.rank}: {name}{overlay.site}{unseen}. {task.MAIN_TITLE} {scores}"
        out.append({"title": title, "image": data_uri(overlay_figure(overlay), "png")})
    return out

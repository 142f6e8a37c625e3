"""Trained at one institution, tested at another: what each local model is worth elsewhere."""

from __future__ import annotations

from fedbrats.config.schema import LOCAL
from fedbrats.report.cells import number
from fedbrats.report.compare.method_figures import matrix_figure
from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results
from fedbrats.report.sections.cross_tables import cross_matrix
from fedbrats.tasks import segmentation as task


def section(results: Results) -> Section | None:
    """A matrix per region, as figure and as table; None with fewer than two local models."""
    run = results.run
    local = {arm for arm in run.cases["arm"] if arm.startswith(f"{LOCAL}:")}
    if len(local) < 2:
        return None
    drawn = []
    for region in run.regions:
        wide = cross_matrix(run.cases, region, run.sites)
        figure = matrix_figure(wide, f"{region} {task.MAIN_TITLE}", "Tested at", "Trained at")
        rows = [
            (name, [number(value, 3) for value in values])
            for name, values in zip(wide.index, wide.to_numpy())
        ]
        drawn.append(
            {"region": region, "figure": data_uri(figure, "svg"), "sites": list(wide.columns), "rows": rows}
        )
    return Section("cross", "Trained here, tested there", {"drawn": drawn}, nav="Cross matrix")

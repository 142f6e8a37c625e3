"""The test cases as dots and boxes."""

from __future__ import annotations

from fedbrats.report.figures import metric_boxes
from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results


def section(results: Results) -> Section:
    """The metrics `task.SHOWN` of every test case by institution."""
    run = results.run
    drawn = [
        (facts, data_uri(metric_boxes(run, metric), "svg") if len(run.cases) else "")
        for metric, facts in run.shown.items()
    ]
    context = {"drawn": drawn, "convention": run.convention}
    return Section("boxes", "Test cases by institution", context, nav="Box plots")

"""Every statistic of every metric."""

from __future__ import annotations

from fedbrats.report.cells import statistic_rows
from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.tables import statistics


def section(results: Results) -> Section:
    """All statistics over every test case of each arm."""
    run = results.run
    rows = statistic_rows(statistics(run), run.metrics)
    context = {"rows": rows, "shown": run.shown, "convention": run.convention}
    return Section("statistics", "All statistics", context)

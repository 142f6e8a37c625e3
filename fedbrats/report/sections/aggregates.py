"""Sites that keep the results of single cases: what they tell in their place, beside all others."""

from __future__ import annotations

from typing import Any

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.report.aggregates import kept_by_sites, told_by_sites
from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.tasks import segmentation as task


def section(results: Results) -> Section | None:
    """Means and deviations by arm and site, and what sites keep by their own policy; None for neither."""
    run = results.run
    tables = told_by_sites(run, results.public)
    kept = [] if results.public else kept_by_sites(run)
    if not tables and not kept:
        return None
    context: dict[str, Any] = {
        "tables": tables,
        "kept": kept,
        "regions": task.REGIONS,
        "shown": run.shown,
        "public": results.public,
        "least": MIN_CASES,
    }
    return Section("aggregates", "Sites that keep the results of single cases", context, nav="Aggregates")

"""What the post-processing did."""

from __future__ import annotations

from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.sections.postprocess_tables import postprocess_context


def section(results: Results) -> Section | None:
    """Scores after each step and fitted values; None for a run without post-processing."""
    found = postprocess_context(results.run.path)
    if found is None:
        return None
    context = {**found, "convention": results.run.convention}
    return Section("postprocess", "Post-processing", context, nav="Post-processing")

"""The personal models against the global one."""

from __future__ import annotations

from fedbrats.report.page import Section, pictured
from fedbrats.report.results import Results
from fedbrats.report.sections.personal_tables import personal_context


def section(results: Results) -> Section | None:
    """What stays at home and who gains by it; None for a run without personal models."""
    if not results.personalised:
        return None
    run = results.run
    found = pictured(personal_context(run, results.personalization, results.institutions), ("gain",))
    context = {**found, "regions": run.regions, "shown": run.shown}
    return Section("personal", "Personal models", context, nav="Personal models")

"""Every arm at every institution."""

from __future__ import annotations

from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.tables import counts_pairs


def section(results: Results) -> Section:
    """Arms by institution with the footnotes of all arms."""
    run = results.run
    context = {
        "regions": run.regions,
        "shown": run.shown,
        "convention": run.convention,
        "public": results.public,
        "scored": bool(results.overall),
        "pairs": counts_pairs(run, results.table),
        "personal": results.personalised,
        "institutions": results.institutions,
        "footnotes": results.footnotes,
    }
    return Section("institutions", "Arms by institution", context, nav="Institutions")

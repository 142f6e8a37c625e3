"""What the uncertainty of the network is worth."""

from __future__ import annotations

from fedbrats.report.arms import arm_title
from fedbrats.report.page import Section, pictured
from fedbrats.report.results import Results
from fedbrats.report.sections.uncertainty_figures import FIGURES, uncertainty_context


def section(results: Results) -> Section | None:
    """Reliability, retained cases and who is to be looked at first; None without any uncertainty.

    Cases are named in a simulation only.
    """
    run = results.run
    found = uncertainty_context(run.path, "cases.csv")
    if found is None:
        return None
    context = {**found, "title": arm_title(found["arm"]), "names": run.simulation}
    return Section("uncertainty", "Uncertainty", pictured(context, FIGURES), nav="Uncertainty")

"""How the network was planned from what the sites told, and why."""

from __future__ import annotations

from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.runs.case_tables import PLAN
from fedbrats.runs.reading import read_json


def section(results: Results) -> Section | None:
    """The reasons of a plan; None for a network that was not planned in this run."""
    found = read_json(results.run.path / PLAN)
    reasons = (found.get("plan") or {}).get("reasons") if isinstance(found, dict) else None
    if not isinstance(reasons, list) or not reasons:
        return None
    return Section("plan", "The plan of the network", {"reasons": [str(r) for r in reasons]}, nav="Plan")

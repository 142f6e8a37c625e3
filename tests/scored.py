"""The metrics of the package, as tests ask for them."""

from __future__ import annotations

from fedbrats.metrics.table import BY_NAME, METRICS, Facts, facts_of
from fedbrats.runs.case_tables import cases_table

SCORES = tuple(BY_NAME)
CASE_COLUMNS = cases_table(SCORES).columns


def facts(convention: str) -> dict[str, Facts]:
    """What is known of all metrics in a run with this convention."""
    return facts_of(METRICS, convention)

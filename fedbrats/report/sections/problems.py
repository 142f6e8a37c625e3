"""What was left out, and why."""

from __future__ import annotations

from fedbrats.report.arms import arm_title
from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.tables import failures
from fedbrats.report.words import skipped_cases


def section(results: Results) -> Section:
    """Warnings about the data, skipped cases, failed replies and rounds."""
    run = results.run
    context = {
        "warnings": [str(warning) for warning in run.partition.get("warnings") or []],
        "skipped": skipped_cases(run),
        "failures": [
            {**row, "arm": arm_title(str(row["arm"]))}
            for row in failures(run).astype(object).to_dict("records")
        ],
    }
    return Section("problems", "Skipped cases and failed replies", context, nav="Problems")

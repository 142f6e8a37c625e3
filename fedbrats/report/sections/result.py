"""What came out, in words and over all test cases."""

from __future__ import annotations

from typing import Any

from fedbrats.report import words
from fedbrats.report.arms import arm_title
from fedbrats.report.cells import number, worst_rows
from fedbrats.report.page import Section
from fedbrats.report.results import Results


def section(results: Results) -> Section:
    """Sentences, every arm over all test cases, and the worst institution of each."""
    run = results.run
    context = {
        "regions": run.regions,
        "shown": run.shown,
        "convention": run.convention,
        "sentences": words.result_sentences(run, results.table, results.empty),
        "overall": results.overall,
        "worst": worst_rows(results.table),
        "empty": _without_truth(results),
    }
    return Section("result", "Result", context, nav="Result")


def _without_truth(results: Results) -> list[dict[str, Any]]:
    """Printable rows of the cases without a region."""
    return [
        {**row, "title": arm_title(row["arm"]), "right": number(100 * row["right"], 0)}
        | {name: number(row[name], 3) for name in ("mean", "mean_with", "mean_without")}
        for row in results.empty.to_dict(orient="records")
    ]

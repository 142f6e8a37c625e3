"""What came out, in words and over all test cases."""

from __future__ import annotations

from fedbrats.report import words
from fedbrats.report.cells import worst_rows
from fedbrats.report.page import Section
from fedbrats.report.results import Results


def section(results: Results) -> Section:
    """Sentences, every arm over all test cases, and the worst institution of each."""
    run = results.run
    context = {
        "regions": run.regions,
        "shown": run.shown,
        "sentences": words.result_sentences(run, results.table),
        "overall": results.overall,
        "worst": worst_rows(results.table),
    }
    return Section("result", "Result", context, nav="Result")

"""Loss and main score over the rounds."""

from __future__ import annotations

from fedbrats.report.figures import learning_curves
from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results


def section(results: Results) -> Section:
    """The learning curves."""
    run = results.run
    figure = data_uri(learning_curves(run), "svg") if len(run.rounds) else ""
    return Section("curves", "Learning curves", {"figure": figure}, nav="Learning curves")

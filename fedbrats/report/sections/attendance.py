"""Who took part in the federated training, and who did not."""

from __future__ import annotations

from typing import Any

from fedbrats.report.cells import MISSING, number
from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.words import quorum_sentence
from fedbrats.runs.case_tables import GROUPS
from fedbrats.runs.reading import read_json
from fedbrats.runs.taking_part import TakingPart, counted, strangers


def section(results: Results) -> Section | None:
    """One row per institution that was to train; None for a run without federated rounds."""
    if not results.taking_part:
        return None
    context = {
        "rows": [_row(part, part.missed_more(results.missed_share)) for part in results.taking_part],
        "quorum": quorum_sentence(results.run),
        "strangers": strangers(results.run.rounds),
        "groups": read_json(results.run.path / GROUPS) or {},
    }
    return Section("attendance", "Who took part", context, nav="Who took part")


def _row(part: TakingPart, bad: bool) -> dict[str, Any]:
    return {
        "site": part.site,
        "bad": bad,
        "contributed": f"{part.contributed} of {part.rounds}",
        "unused": part.unused or MISSING,
        "missed": part.missed or MISSING,
        "why": part.reasons or MISSING,
        "steps": MISSING if part.steps is None else part.steps,
        "share": MISSING if part.share is None else number(100 * part.share, 1),
        "last_seen": MISSING if part.last_seen is None else part.last_seen,
        "refused": counted(part.refused) or MISSING,
    }

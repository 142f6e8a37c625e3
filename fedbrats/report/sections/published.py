"""What others have published for the same experiment, beside what came out here."""

from __future__ import annotations

from typing import Any

from fedbrats.report.cells import MISSING, number
from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.tables import EVERY_SITE
from fedbrats.tasks import segmentation as task


def section(results: Results) -> Section | None:
    """Published numbers with their source, then ours of every arm; None where the configuration names none."""
    published = (results.run.config.get("report") or {}).get("published") or []
    if not published:
        return None
    theirs = [
        {"what": str(row.get("what")), "source": str(row.get("source")), **_cells(row)} for row in published
    ]
    table = results.table[(results.table["site"] == EVERY_SITE) & (results.table["n"] > 0)]
    ours = []
    for arm, part in table.groupby("arm", sort=False):
        values = dict(zip(part["region"], part[task.MAIN]))
        ours.append({"what": str(arm), "source": "this run", **_cells(values)})
    context = {"regions": task.REGIONS, "rows": [*theirs, *ours], "metric": task.MAIN_TITLE}
    return Section("published", "Beside what was published", context, nav="Published")


def _cells(values: dict[str, Any]) -> dict[str, Any]:
    """The score of every region and their mean, which is worked out where it is not given."""
    found = [values.get(region) for region in task.REGIONS]
    known = [float(value) for value in found if value is not None]
    mean = values.get("mean", sum(known) / len(known) if len(known) == len(found) else None)
    cells = [MISSING if value is None else number(value, 3) for value in found]
    return {
        "cells": cells,
        "mean": MISSING if mean is None else number(mean, 3),
        "note": values.get("note", ""),
    }

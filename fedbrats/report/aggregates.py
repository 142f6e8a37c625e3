"""Means of sites that keep the results of single cases, beside all others: `aggregates.csv` as it is printed."""

from __future__ import annotations

from typing import Any

from fedbrats.metrics.aggregates import together
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.table import BY_NAME
from fedbrats.report.arms import arm_rank, arm_title
from fedbrats.report.cells import number
from fedbrats.runs.case_tables import AGGREGATES, WITHHELD
from fedbrats.runs.reading import natural, read_json
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

EVERY = "all sites"


def told_by_sites(run: RunFolder, public: bool) -> list[dict[str, Any]]:
    """One table per arm, [] where no site keeps the results of its cases.

    `title` and `rows`, the first of all sites together; a row has `site`, `n` and `cells`, mean and deviation of each
    metric of `task.SHOWN` by region, as text. With `public` sites with fewer than `MIN_CASES` cases are left out.
    """
    if not (run.path / AGGREGATES.name).is_file():
        return []
    frame = AGGREGATES.read(run.path)
    frame = frame[frame["step"] == ""]
    if public:
        frame = frame[frame["cases"] >= MIN_CASES]
    tables = []
    for arm in sorted(set(frame["arm"]), key=arm_rank):
        found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for row in frame[frame["arm"] == arm].to_dict("records"):
            values = {"cases": int(row["cases"]), "mean": row["mean"], "sd": _or_none(row["sd"])}
            found.setdefault(str(row["site"]), {})[row["metric"], row["region"]] = values
        sites = sorted(found, key=natural)
        keys = dict.fromkeys(key for site in sites for key in found[site])
        every = {key: together([found[site][key] for site in sites if key in found[site]]) for key in keys}
        rows = [_row(EVERY, every), *(_row(site, found[site]) for site in sites)]
        tables.append({"title": arm_title(arm), "rows": rows})
    return tables


def kept_by_sites(run: RunFolder) -> list[dict[str, str]]:
    """What sites keep at home, in their words: `site` and `what`."""
    found = read_json(run.path / WITHHELD) or {}
    return [{"site": site, "what": "; ".join(map(str, said))} for site, said in found.items()]


def _row(site: str, found: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    cells = []
    for metric in task.SHOWN:
        decimals = BY_NAME[metric].decimals
        for region in task.REGIONS:
            values = found.get((metric, region), {"mean": None, "sd": None})
            spread = "" if values["sd"] is None else f" ± {number(values['sd'], decimals)}"
            cells.append(f"{number(values['mean'], decimals)}{spread}")
    return {"site": site, "n": max(values["cases"] for values in found.values()), "cells": cells}


def _or_none(value: float) -> float | None:
    return None if value != value else value

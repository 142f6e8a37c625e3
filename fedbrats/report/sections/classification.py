"""What a network that classifies has come to: by arm and institution, and whether it is chance."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fedbrats.metrics.classification import SCORES, TITLES
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.report.aggregates import kept_by_sites
from fedbrats.report.arms import arm_title
from fedbrats.report.cells import MISSING, number
from fedbrats.report.page import Section, data_uri
from fedbrats.report.released import WITHHELD, withheld_sites
from fedbrats.report.results import Results
from fedbrats.report.sections.classification_figures import calibration_figure, roc_figure
from fedbrats.report.tables import EVERY_SITE
from fedbrats.runs.classified import read_institutions
from fedbrats.tasks.classification import arms_of, told, verdict
from fedbrats.tasks.told import KEPT


def section(results: Results) -> Section:
    """Sentences, one table over all test cases, one by institution, ROC curves and calibration.

    Where sites keep the results of single cases there are no curves, which would be of the others alone.
    """
    run = results.run
    table = read_institutions(run.path)
    hidden = _hidden(table) if results.public else pd.Series(False, index=table.index)
    rows = [
        _row(row, bool(gone), run.holdout) for row, gone in zip(table.to_dict("records"), hidden, strict=True)
    ]
    keep = sorted({str(site) for site in table.loc[table[KEPT] != "", "site"]} - {EVERY_SITE})
    drawn = len(table) > 0 and not results.public and not keep  # every step of a curve is a case
    context: dict[str, Any] = {
        "sentences": _sentences(table[~hidden]) or ["No test case was scored, so there is no result."],
        "titles": [TITLES[name] for name in SCORES],
        "whole": [row for row in rows if row["site"] == EVERY_SITE],
        "sites": [row for row in rows if row["site"] != EVERY_SITE],
        "roc": data_uri(roc_figure(run.cases), "svg") if drawn else "",
        "calibration": data_uri(calibration_figure(run.cases), "svg") if drawn else "",
        "withheld": WITHHELD if hidden.any() else "",
        "keep": ", ".join(keep),
        "kept": [] if results.public else kept_by_sites(run),
    }
    return Section("classification", "Result", context, nav="Result")


def _sentences(table: pd.DataFrame) -> list[str]:
    """For each arm whether it differs from chance over all test cases, and how many cases have no score."""
    whole = table[table["site"] == EVERY_SITE]
    out = [f"{arm_title(arm)}: {verdict(whole[whole['arm'] == arm].iloc[0])}" for arm in arms_of(whole)]
    lost = whole[whole["failed"] > 0]
    return out + [
        f"{arm_title(row['arm'])}: {int(row['failed'])} of {int(row['n'])} test cases failed; those that their site "
        "scored count as wholly wrong, others are in no number."
        for row in lost.to_dict("records")
    ]


def _hidden(table: pd.DataFrame) -> pd.Series:
    """Rows that must not be handed out: of few cases, or from which those could be worked out."""
    whole = table["site"] == EVERY_SITE
    return (whole & (table["n"] < MIN_CASES)) | table["site"].isin(withheld_sites(table))


def _row(row: dict[str, Any], hidden: bool, unseen: set[str]) -> dict[str, Any]:
    cells = [MISSING if hidden else _cell(row, name) for name in SCORES]
    p = row["p_chance"]
    return {
        "site": row["site"],
        "unseen": row["site"] in unseen,
        "arm": row["arm"],
        "title": arm_title(row["arm"]),
        "n": int(row["n"]),
        "positives": MISSING if hidden or pd.isna(row["positives"]) else int(row["positives"]),
        "cells": cells,
        "p": MISSING if hidden or pd.isna(p) else told(p).removeprefix("= "),
    }


def _cell(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return number(row[name], 3) + ("" if pd.isna(low) else f" ({low:.2f} to {high:.2f})")

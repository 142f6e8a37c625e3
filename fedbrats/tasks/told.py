"""What a site that keeps the scores of single cases tells of a classification, and what of that holds over all sites.

A number of one label alone (sensitivity, specificity), or of both against each other (AUC), says too much of few cases
of that label: such numbers are told where each label has enough cases, all or none, as one would follow from the rest.
So is how many cases have the label 1: that nobody has it, or everybody, would tell the label of each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fedbrats.metrics.classification import SCORES, chance

AUC, P_CHANCE, POSITIVES, FAILED, BRIER = "auc", "p_chance", "positives", "failed", "brier"
OF_CLASSES = (AUC, "sensitivity", "specificity")
NOT_TOGETHER = (AUC, "calibration_error", P_CHANCE)  # of all cases; those of parts of them do not say it
SCORED = "scored"  # cases behind a mean; n has those without an answer, too
KEPT = "kept"  # column: what stayed at the site
ALWAYS_KEPT = ("single cases", "intervals")


def enough_of_both(rows: Sequence[Mapping[str, Any]], least: int) -> bool:
    """Whether each label has at least `least` of the cases in `rows`."""
    positives = sum(row["label"] == 1 for row in rows)
    return least <= positives <= len(rows) - least


def told_scores(
    rows: Sequence[Mapping[str, Any]], least: int, names: Collection[str] = tuple(SCORES)
) -> list[dict[str, Any]]:
    """The scores of a site's test cases without a row of one of them.

    p of chance is told with the AUC. How many cases failed is told where all did, none, or at least `least` both ways.

    Args:
        rows: one per case with score, label and status.
        least: cases behind any number; of each label behind those `OF_CLASSES`.
        names: of the scores that may be told.

    Returns:
        Rows of metric, value, and the cases behind it: of sensitivity those with label 1, of specificity those with
        label 0, of all others all. None at all of fewer cases than `least`.
    """
    if len(rows) < max(least, 1):
        return []
    scores, labels = (np.array([row[key] for row in rows], float) for key in ("score", "label"))
    order = np.lexsort((labels, scores))  # as `tasks.classification.by_institution`, to the last bit
    scores, labels = scores[order], labels[order].astype(int)
    cases, positives, both = len(rows), int(labels.sum()), enough_of_both(rows, least)
    behind = {"sensitivity": positives, "specificity": cases - positives}
    told = [name for name in SCORES if name in names and (both or name not in OF_CLASSES)]
    found = {name: SCORES[name](scores, labels) for name in told}
    if AUC in found:
        found[P_CHANCE] = chance(scores, labels)
    if set(told) & set(OF_CLASSES):
        found[POSITIVES] = positives
    failed = sum(row["status"] != "ok" for row in rows)
    if failed in (0, cases) or least <= failed <= cases - least:
        found[FAILED] = failed
    return [{"metric": name, "value": v, "cases": behind.get(name, cases)} for name, v in found.items()]


def numbers_told(rows: Sequence[Mapping[Any, Any]], names: Sequence[str]) -> dict[str, Any]:
    """What a site has told by `told_scores` as the numbers `names` of `by_institution`, NaN where it stayed.

    Also `KEPT`, what stayed in words, and `SCORED`, how many cases are behind it.
    """
    told = {str(row["metric"]): float(row["value"]) for row in rows}
    cases = int(next(row["cases"] for row in rows if row["metric"] == BRIER))
    stayed = [name for name in (*SCORES, P_CHANCE, POSITIVES, FAILED) if name not in told]
    found = {name: told.get(name, math.nan) for name in names}
    return {
        **found,
        "n": cases,
        SCORED: cases,
        KEPT: f"{', '.join([*ALWAYS_KEPT, *stayed])} stay at the site",
    }


def over_all(parts: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The numbers `names` over the cases of several sites of which some keep single cases.

    Counts add up, and accuracy, sensitivity, specificity and the Brier score are means over cases, so they are those of
    all cases in one list wherever every site tells its own. An AUC is not: it compares cases of different sites, and a
    mean of those of sites is another number. It is NaN, as is what is made of bins or of ranks.

    Args:
        parts: of each site, as `numbers_told`, or with `SCORED` as `by_institution` has them.
        names: of the numbers.
    """
    if len(parts) == 1:
        return {**next(iter(parts.values()))}
    told = [part for part in parts.values() if part[SCORED]]
    weights: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "accuracy": lambda part: part[SCORED],
        BRIER: lambda part: part[SCORED],
        "sensitivity": lambda part: part[POSITIVES],
        "specificity": lambda part: part[SCORED] - part[POSITIVES],
    }
    found = dict.fromkeys(names, math.nan)
    found |= {name: _mean(told, name, weight) for name, weight in weights.items()}
    found |= {name: sum(part[name] for part in parts.values()) for name in ("n", FAILED)}
    found[POSITIVES] = sum(part[POSITIVES] for part in told)
    who = ", ".join(site for site, part in parts.items() if part[KEPT])
    why = f"cannot be put together from those of institutions, and single cases stay at {who}"
    untold = [name for name in (*weights, POSITIVES, FAILED) if math.isnan(found[name])]
    more = f"; {', '.join(untold)} stay at some of them" if untold else ""
    return {**found, KEPT: f"{', '.join(NOT_TOGETHER)} {why}{more}"}


def _mean(
    parts: Sequence[Mapping[str, Any]], name: str, weight: Callable[[Mapping[str, Any]], float]
) -> float:
    """Mean over cases of the means of sites; NaN where one of them keeps its own, or how many are behind it."""
    pairs = [(part[name], weight(part)) for part in parts]
    total = sum(cases for _, cases in pairs)
    return sum(value * cases for value, cases in pairs if cases) / total if total else math.nan

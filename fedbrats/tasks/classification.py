"""The task: one label of a case, 0 or 1, such as MGMT methylation. What sites tell of it, and what it is worth.

A network that classifies gives one logit per case [batch, 1]. Every round, sites tell their mean Brier score, that is
a mean over cases and can be put together from those of sites. An AUC cannot, and a site with few cases has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.metrics.classification import LEVEL, LOWER, SCORES, TITLES, chance, intervals
from fedbrats.metrics.summary import ALL_SITES
from fedbrats.metrics.table import Facts
from fedbrats.tasks.task import Task
from fedbrats.tasks.told import KEPT, SCORED, numbers_told, over_all

LABEL = "label"  # what stands where a segmentation has a region
CHANNELS = 1  # of the output
MAIN = "auc"  # by which arms are compared at the end
CLASSIFICATION = Task(
    *("classification", "brier", TITLES["brier"], {LABEL: "brier"}),
    lower_is_better=True,
    final=MAIN,
    final_title=TITLES[MAIN],
)
FACTS = {name: Facts(TITLES[name], lower_is_better=name in LOWER) for name in SCORES}
NUMBERS = (
    *("n", "positives", "failed"),
    *(name for score in SCORES for name in (score, f"{score}_low", f"{score}_high")),
    "p_chance",
)


def loss_of(score: float, label: int) -> float:
    """The main score of one case: its squared distance from the label, in [0, 1]."""
    return (score - label) ** 2


def failed_score(label: int) -> float:
    """The score of a case that could not be predicted: as wrong as can be, so that nobody gains from failing."""
    return 1.0 - label


def by_institution(cases: pd.DataFrame, told: pd.DataFrame | None = None) -> pd.DataFrame:
    """The scores of every arm at every institution and over all of them.

    Over all, the cases of all institutions are ranked together, so an arm whose scores mean something else at each
    institution (`local`) pays for it.

    Args:
        cases: columns arm, site, score, label and status, one row per case; a score is NaN where a site has not
            answered, and that case is then in n and failed and in no score.
        told: columns arm, site, metric, value, cases (`tasks.told.told_scores`), of the sites that keep single cases.

    Returns:
        Columns arm, site and `NUMBERS`: n test cases, positives among those with a score, failed; every score with its
        95 % interval; p_chance as `metrics.classification.chance`. NaN where it cannot be known. Site "all" first, by
        `tasks.told.over_all` once a site keeps its cases. Last `KEPT`: what stays at the site, "" for nothing.
    """
    rows: list[dict[str, Any]] = []
    kept = pd.DataFrame(columns=["arm", "site"]) if told is None else told
    for arm in dict.fromkeys([*cases["arm"], *kept["arm"]]):
        mine, theirs = cases[cases["arm"] == arm], kept[kept["arm"] == arm]
        parts: dict[str, dict[str, Any]] = {str(site): _numbers(part) for site, part in mine.groupby("site")}
        parts |= {
            str(site): numbers_told(part.to_dict("records"), NUMBERS) for site, part in theirs.groupby("site")
        }
        whole = over_all(dict(sorted(parts.items())), NUMBERS) if len(theirs) else _numbers(mine)
        rows += [{"arm": arm, "site": ALL_SITES, **whole}]
        rows += [{"arm": arm, "site": site, **parts[site]} for site in sorted(parts)]
    return pd.DataFrame(rows, columns=["arm", "site", *NUMBERS, KEPT])


def _numbers(part: pd.DataFrame) -> dict[str, Any]:
    scored = part[part["score"].notna()].sort_values(
        ["site", "score", "label"]
    )  # the same draws for any order of rows
    scores, labels = scored["score"].to_numpy(float), scored["label"].to_numpy(float).astype(int)
    found: dict[str, Any] = {
        "n": len(part),
        "positives": int(labels.sum()),
        "failed": int((part["status"] != "ok").sum()),
    }
    ends = intervals(scores, labels)
    for name, score in SCORES.items():
        low, high = ends[name]
        found |= {name: score(scores, labels), f"{name}_low": low, f"{name}_high": high}
    return {**found, "p_chance": chance(scores, labels), SCORED: len(scores), KEPT: ""}


def verdict(row: Any) -> str:
    """Whether a row of `by_institution` differs from chance, in a sentence.

    One p value among several of a report is below the level by chance, too; the sentence says what a single one means.
    """
    auc, p = float(row["auc"]), float(row["p_chance"])
    if np.isnan(p) and row.get(KEPT):
        return f"No AUC of all test cases: {row[KEPT]}."
    if np.isnan(p):
        return "No AUC: the test cases have one label only."
    if p < LEVEL:
        return f"AUC {auc:.3f} is above chance (permutation test, p {told(p)})."
    return f"AUC {auc:.3f} is not to be told from chance, 0.5 (permutation test, p {told(p)})."


def told(p: float) -> str:
    """A p value in words."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def local_at_home(cases: pd.DataFrame, prefix: str = "local:") -> pd.DataFrame:
    """The models that each institution trained alone, each on its own cases, as one arm "local"; others as they are."""
    mine = [
        arm.removeprefix(prefix) if arm.startswith(prefix) else site
        for arm, site in zip(cases["arm"], cases["site"], strict=True)
    ]
    kept = cases[np.array([of == site for of, site in zip(mine, cases["site"], strict=True)], bool)]
    return kept.assign(arm=["local" if arm.startswith(prefix) else arm for arm in kept["arm"]])


def arms_of(table: pd.DataFrame) -> Sequence[str]:
    """The arms of `by_institution`, in its order."""
    return list(dict.fromkeys(table["arm"]))

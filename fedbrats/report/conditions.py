"""What a score has to be read with: the steps that each arm has had, and the cases with no truth in a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fedbrats.report.arms import arm_rank, arm_title, merge_local_arms
from fedbrats.report.cells import number
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of an arm's training: one after the other in its model, and over all sites together."""

    in_a_row: int
    together: int


def steps_of_arms(run: RunFolder) -> dict[str, Steps]:
    """Steps of each trained arm ("local" for the longest of the local models) from `rounds.csv`.

    Sites of a round work beside each other, so the longest of them counts, and only in rounds that changed the model.
    An arm of which a count is missing, as in folders of older versions, is absent.
    """
    trained = run.rounds[(run.rounds["phase"] == "train") & (run.rounds["status"] == "ok")]
    kept = run.rounds[(run.rounds["phase"] == "round") & (run.rounds["status"] == "ok")]
    trained = trained.merge(kept[["round", "arm"]], on=["round", "arm"])
    found: dict[str, Steps] = {}
    for arm, part in trained.groupby("arm"):
        if part["steps"].isna().any():
            continue
        steps = Steps(int(part.groupby("round")["steps"].max().sum()), int(part["steps"].sum()))
        name = "local" if str(arm).startswith("local:") else str(arm)
        before = found.get(name, Steps(0, 0))
        found[name] = Steps(max(before.in_a_row, steps.in_a_row), before.together + steps.together)
    return dict(sorted(found.items(), key=lambda item: arm_rank(item[0])))


def steps_in_words(run: RunFolder) -> str:
    """ "federated 200 (1200 at all sites), pooled 200, local 200"; "not recorded" for an older folder."""
    parts = []
    for arm, steps in steps_of_arms(run).items():
        beside = f" ({steps.together} at all sites)" if steps.together != steps.in_a_row else ""
        parts.append(f"{arm_title(arm).split(',')[0].lower()} {steps.in_a_row}{beside}")
    return ", ".join(parts) or "not recorded"


def without_truth(run: RunFolder) -> pd.DataFrame:
    """Test cases with nothing of a region in their truth, by region and arm, where there are any.

    Columns: region, arm, n (test cases), empty (of which without the region), right (share of those that got the best
    score), and mean (all), mean_with and mean_without of the main score. A case of which the volume is unknown, as
    after a failure, counts as one with the region.

    Raises:
        RunFolderError: the scores have an unknown convention.
    """
    columns = ["region", "arm", "n", "empty", "right", "mean", "mean_with", "mean_without"]
    if not len(run.cases):
        return pd.DataFrame(columns=columns)
    cases, rows = merge_local_arms(run.cases, run.metrics), []
    for (region, arm), part in cases.groupby(["region", "arm"]):
        empty = part["volume_true_ml"] == 0
        if empty.any():
            score = part[task.MAIN]
            means = {
                "mean": score.mean(),
                "mean_with": score[~empty].mean(),
                "mean_without": score[empty].mean(),
            }
            right = float((score[empty] == 1).mean())
            rows.append(
                {"region": region, "arm": arm, "n": len(part), "empty": empty.sum(), "right": right} | means
            )
    frame = pd.DataFrame(rows, columns=columns)
    order = frame.assign(
        place=frame["region"].map({region: i for i, region in enumerate(task.REGIONS)}),
        rank=frame["arm"].map(lambda arm: str(arm_rank(arm))),
    )
    return frame.loc[order.sort_values(["place", "rank"]).index].reset_index(drop=True)


def truth_sentences(empty: pd.DataFrame, words: Mapping[str, str] = task.IN_WORDS) -> list[str]:
    """How many cases lack a region, how they are scored, and the federated score with and without them.

    Args:
        empty: result of `without_truth`.
        words: what the regions are called.
    """
    out = []
    for row in empty[empty["arm"] == "federated"].to_dict(orient="records"):
        right = round(row["right"] * row["empty"])
        out.append(
            f"{row['empty']} of its {row['n']} test cases have no {words[row['region']]}: such a case scores 1 "
            f"where nothing of it is predicted, which was so in {right}, and 0 where anything is; the mean "
            f"{task.MAIN_TITLE} is {number(row['mean'], 3)} with them and {number(row['mean_with'], 3)} without."
        )
    return out

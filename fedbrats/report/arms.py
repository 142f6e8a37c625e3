"""From rows per trained model to the arms of the report.

`cases.csv` has one arm per trained model; the models that the institutions trained alone are "local:<site>". The
report shows them as two arms: "local" (a model on its own institution's test cases) and "local_elsewhere" (on the
test cases of other institutions). In a personalised federation "federated" is the global model, and "personal" what
each training institution made of it, on its own test cases.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fedbrats.metrics.table import VOLUMES, Facts, worst
from fedbrats.tasks import segmentation as task

ARM_ORDER = (
    "federated",
    "triggered",
    "personal",
    "pooled",
    "pooled_in_a_row",
    "local",
    "local_elsewhere",
    "floor",
)
OF_TRAINING_SITES = ("personal", "local")  # arms without a model for an institution held out of the training
ARM_TITLES = {
    "federated": "Federated",
    "triggered": "Federated, with a trigger",
    "personal": "Personal",
    "pooled": "Pooled",
    "pooled_in_a_row": "Pooled, steps of one site",
    "local": "Local, own",
    "local_elsewhere": "Local, elsewhere",
    "floor": "FLAIR threshold",
}


def arm_title(arm: str) -> str:
    """Name of an arm as printed."""
    return ARM_TITLES.get(arm, arm)


def arm_rank(arm: str) -> tuple[int, str]:
    """Sort key: the order of `ARM_ORDER`, then any other arm by name."""
    return (ARM_ORDER.index(arm) if arm in ARM_ORDER else len(ARM_ORDER), arm)


def report_arms(frame: pd.DataFrame) -> pd.Series:
    """Arm of the report for each row (columns `arm` and `site`): local models are on their own site, or elsewhere."""
    local = frame["arm"].str.startswith("local:")
    own = local & (frame["arm"].str.removeprefix("local:") == frame["site"])
    return frame["arm"].mask(local, "local_elsewhere").mask(own, "local")


def merge_local_arms(cases: pd.DataFrame, metrics: Mapping[str, Facts]) -> pd.DataFrame:
    """Replace the arms "local:<site>" by "local" and "local_elsewhere", and failed scores by the worst ones.

    A case counts once per arm: where several local models segmented it, its row holds the mean over them, so that
    the interval over cases does not become narrow by counting a case several times. Such a row is failed only when
    all of them failed.

    Args:
        cases: rows with the columns of `cases.csv`; a failed row without a region stands for all regions that occur.
        metrics: that were scored; they know the scores of a failed case.

    Returns:
        Rows with the same columns and a region each; the scores of failed rows are the worst.
    """
    whole = (cases["status"] != "ok") & (cases["region"] == "")
    regions = task.in_order(set(cases["region"])) or task.REGIONS
    spread = [cases[whole].assign(region=region) for region in regions] if whole.any() else []
    rows = pd.concat([cases[~whole], *spread], ignore_index=True)
    for metric, value in worst(metrics).items():
        rows[metric] = rows[metric].mask(rows["status"] != "ok", value)
    rows["arm"] = report_arms(rows)
    elsewhere = rows["arm"] == "local_elsewhere"
    parts = [rows[~elsewhere], _mean_over_models(rows[elsewhere], [*metrics, *VOLUMES])]
    return pd.concat([part for part in parts if len(part)] or [rows], ignore_index=True)[list(cases.columns)]


def _mean_over_models(rows: pd.DataFrame, numbers: list[str]) -> pd.DataFrame:
    keys = ["site", "case", "region"]
    # "ok" sorts after "failed: ...", so the largest status of a case is "ok" if any model succeeded.
    parts = rows.groupby(keys, as_index=False, sort=False)
    means = parts[numbers].mean().merge(parts["status"].max(), on=keys)
    return means.assign(arm="local_elsewhere")


def percent_of_pooled(
    cases: pd.DataFrame, site: str | None = None, over: str = "pooled"
) -> dict[str, dict[str, float]]:
    """Mean of the main score of every arm as a percentage of the pooled arm's, on the cases that both have.

    The comparison is paired because arms differ in their cases: an institution held out of the training has no
    local model of its own.

    Args:
        cases: result of `merge_local_arms`.
        site: only this institution's cases.
        over: the arm that is 100 %.

    Returns:
        Arm to region to per cent; an arm or region without shared cases, or with a pooled mean of 0, is absent.
    """
    good = cases if site is None else cases[cases["site"] == site]
    keys = ["site", "case", "region"]
    pooled, other = good[good["arm"] == over][[*keys, task.MAIN]], f"{task.MAIN}_pooled"
    out: dict[str, dict[str, float]] = {}
    for arm in sorted(set(good["arm"]) - {over}, key=arm_rank):
        pairs = good[good["arm"] == arm].merge(pooled, on=keys, suffixes=("", "_pooled"))
        for region in task.REGIONS:
            shared = pairs[pairs["region"] == region]
            if len(shared) and shared[other].mean() > 0:
                out.setdefault(arm, {})[region] = float(100 * shared[task.MAIN].mean() / shared[other].mean())
    return out

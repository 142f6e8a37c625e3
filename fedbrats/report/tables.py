"""The tables of the report, as numbers; how they are printed is decided in `cells.py`.

Numbers come from `summary.json`; what it does not hold, or gives with intervals of another kind, as older versions did,
is computed from `cases.csv` with the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.config.schema import FLOOR
from fedbrats.inference.flair_threshold import REGIONS as OF_FLOOR
from fedbrats.metrics.interval import INTERVALS, MIN_CASES
from fedbrats.metrics.summary import ALL_SITES as EVERY_SITE
from fedbrats.metrics.summary import STATISTICS, summarise
from fedbrats.metrics.table import BY_NAME
from fedbrats.report.arms import OF_TRAINING_SITES, arm_rank, merge_local_arms, percent_of_pooled
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.rounds import AT_THE_END
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task


def statistics(run: RunFolder) -> pd.DataFrame:
    """Long table: arm, site ("all" for every case together), region, metric and the columns of `STATISTICS`.

    Distances in mm, shares between 0 and 1; NaN where `summary.json` holds none.
    """
    arms, alike = run.summary.get("arms") or {}, run.summary.get("intervals") == INTERVALS
    if arms and (alike or not len(run.cases)):
        other = {} if alike else {"ci_low": np.nan, "ci_high": np.nan}
        rows = [
            {"arm": arm, "site": str(site), "region": region, "metric": metric, **_numbers(values), **other}
            for arm, parts in arms.items()
            for site, regions in {EVERY_SITE: parts.get("all", {}), **parts.get("sites", {})}.items()
            for region, metrics in regions.items()
            for metric, values in metrics.items()
        ]
        frame = pd.DataFrame(rows, columns=["arm", "site", "region", "metric", *STATISTICS])
    elif len(run.cases):
        frame = _from_cases(run)
    else:
        frame = pd.DataFrame(columns=["arm", "site", "region", "metric", *STATISTICS])
    return frame[["arm", "site", "region", "metric", *STATISTICS]].reset_index(drop=True)


def _merged(run: RunFolder) -> pd.DataFrame:
    """Test cases with the arms of the report."""
    return merge_local_arms(run.cases, run.metrics) if len(run.cases) else run.cases


def _from_cases(run: RunFolder) -> pd.DataFrame:
    try:
        return summarise(_merged(run), run.metrics, run.convention)
    except ValueError as error:
        raise RunFolderError(f"{run.path / 'cases.csv'}: {error}") from error


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: np.nan if values.get(name) is None else float(values[name]) for name in STATISTICS}


def arms_of(frame: pd.DataFrame) -> list[str]:
    """Arms of a long table in report order."""
    return sorted(set(frame["arm"]), key=arm_rank)


def institution_table(run: RunFolder) -> pd.DataFrame:
    """Arms by institution: one row per site ("all" first), arm and region.

    Columns: site, unseen (bool, held out of every training), arm, region, n (test cases), failed (those of them that
    could not be scored and count with the worst scores), for each metric <metric>, <metric>_low and <metric>_high (mean
    and 95 % interval), percent_of_pooled (mean of the main score), points (metric to the scores themselves, where they
    are too few for an interval), note (why numbers are missing, empty when none is). Missing numbers are NaN and have a
    note; those of a metric that was not scored have none.
    """
    frame = statistics(run)
    index = {
        (row["arm"], row["site"], row["region"], row["metric"]): row
        for row in frame.to_dict(orient="records")
    }
    merged, metrics = _merged(run), list(dict.fromkeys((*task.SHOWN, *run.metrics)))
    few = _points(merged, list(run.metrics))
    rows = []
    for site in [EVERY_SITE, *run.sites]:
        percent = _percent(run, merged, site)
        for arm in arms_of(frame):
            for region in run.regions:
                found = {metric: index.get((arm, site, region, metric), {}) for metric in metrics}
                n = found[task.MAIN].get("n", 0)
                row = {
                    "site": site,
                    "unseen": site in run.holdout,
                    "arm": arm,
                    "region": region,
                    "n": 0 if pd.isna(n) else int(n),
                    "failed": int(np.nan_to_num(found[task.MAIN].get("failed", 0))),
                    "percent_of_pooled": 100.0
                    if arm == "pooled"
                    else percent.get(arm, {}).get(region, np.nan),
                }
                for metric, values in found.items():
                    row |= _mean_and_interval(metric, values)
                if not row["n"]:
                    row["percent_of_pooled"] = np.nan
                rows.append({**row, "points": few.get((arm, site, region), {}), "note": _note(row, run)})
    return pd.DataFrame(rows, columns=institution_columns(metrics))


def institution_columns(metrics: Sequence[str]) -> list[str]:
    """Columns of `institution_table`."""
    numbers = [f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high")]
    return ["site", "unseen", "arm", "region", "n", "failed", *numbers, "percent_of_pooled", "points", "note"]


def _mean_and_interval(metric: str, values: dict[str, float]) -> dict[str, float]:
    """Mean and interval."""
    if not values.get("n"):
        return dict.fromkeys((metric, f"{metric}_low", f"{metric}_high"), np.nan)
    return {metric: values["mean"], f"{metric}_low": values["ci_low"], f"{metric}_high": values["ci_high"]}


def _points(merged: pd.DataFrame, metrics: list[str]) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """Scores of the cases by arm, site ("all" too) and region, wherever they are too few for an interval."""
    every = pd.concat([merged, merged.assign(site=EVERY_SITE)])
    return {
        key: {metric: sorted(part[metric]) for metric in metrics}
        for key, part in every.groupby(["arm", "site", "region"])
        if len(part) < MIN_CASES
    }


def _percent(run: RunFolder, merged: pd.DataFrame, site: str) -> dict[str, dict[str, float]]:
    """Stored percentages where there are any, computed ones for the rest."""
    computed = percent_of_pooled(merged, None if site == EVERY_SITE else site)
    stored = run.summary.get("percent_of_pooled") or {} if site == EVERY_SITE else {}
    return computed | {
        arm: {r: float(v) for r, v in part.items() if v is not None} for arm, part in stored.items()
    }


def _note(row: dict[str, Any], run: RunFolder) -> str:
    """Why numbers of a row are missing."""
    if not row["n"]:
        if row["arm"] in OF_TRAINING_SITES and row["unseen"]:
            return "an institution held out of the training has no model of its own"
        if row["arm"] == FLOOR and row["region"] not in OF_FLOOR:
            return f"a threshold on FLAIR says nothing but {', '.join(OF_FLOOR)}"
        return "no test case of this institution in this arm"
    reasons = [no_interval(row["n"])] if row["n"] < MIN_CASES else []
    if pd.isna(row["percent_of_pooled"]):
        with_pooled = "pooled" in {*run.cases["arm"], *(run.summary.get("arms") or {})}
        reasons.append(
            "no case is shared with the pooled arm" if with_pooled else "the run has no pooled arm"
        )
    return "; ".join(reasons)


def no_interval(n: int) -> str:
    """Why the mean over so few cases has none."""
    if n == 1:
        return "a single test case has no interval"
    return f"fewer than {MIN_CASES} test cases have no interval that holds 95 %"


def counts_pairs(run: RunFolder, table: pd.DataFrame) -> bool:
    """Whether n of "local_elsewhere" counts pairs of model and case, and not every case once."""
    n = table.loc[(table["arm"] == "local_elsewhere") & (table["site"] == EVERY_SITE), "n"].max()
    return bool(n > run.cases["case"].nunique() > 0)


def worst_institution(
    table: pd.DataFrame, arm: str, region: str, metric: str = task.MAIN
) -> dict[str, Any] | None:
    """The institution with the worst mean of an arm: {"site", "unseen", "mean", "n"}; None without any.

    Args:
        table: result of `institution_table`.
    """
    rows = table[(table["arm"] == arm) & (table["region"] == region) & (table["site"] != EVERY_SITE)]
    rows = rows[rows[metric].notna()]
    if not len(rows):
        return None
    row = rows.loc[rows[metric].idxmax() if BY_NAME[metric].lower_is_better else rows[metric].idxmin()]
    return {
        "site": row["site"],
        "unseen": bool(row["unseen"]),
        "mean": float(row[metric]),
        "n": int(row["n"]),
    }


def failures(run: RunFolder) -> pd.DataFrame:
    """Failed replies and rounds, each once: round, arm, site, phase, reason. From `rounds.csv` and the summary."""
    bad = run.rounds[run.rounds["status"] != "ok"]
    rows = [
        {**row, "reason": row["status"].removeprefix("failed").lstrip(": ") or "no reason recorded"}
        for row in bad[["round", "arm", "site", "phase", "status"]].to_dict(orient="records")
    ]
    known = {(row["round"], row["arm"], row["site"]) for row in rows}
    rows += [
        {**reply, "phase": reply.get("phase", "-")}
        for reply in run.summary.get("failed_replies") or []
        if (reply.get("round"), reply.get("arm"), reply.get("site")) not in known
    ]
    return pd.DataFrame(rows, columns=["round", "arm", "site", "phase", "reason"])


def cost_table(run: RunFolder) -> pd.DataFrame:
    """What each arm cost: arm, rounds, failed_rounds, seconds, seconds_per_round, mb_down, mb_up, mb_per_round.

    From `rounds.csv`; local models are taken together as arm "local". Seconds are added up over the sites and hold
    training, validation, fitting of the post-processing and test; per round only the first two, as are the bytes.
    MB = 10^6 bytes, down = server to site. `failed_rounds` counts per model.
    """
    rounds = run.rounds.assign(arm=run.rounds["arm"].str.replace(r"^local:.*", "local", regex=True))
    rows = []
    for arm in arms_of(rounds):
        part = rounds[rounds["arm"] == arm]
        whole, replies = part[part["phase"] == "round"], part[part["phase"] != "round"]
        training = replies[~replies["phase"].isin(AT_THE_END)]
        count = int(part[part["phase"].isin(["train", "round"])]["round"].nunique())
        megabytes = (training["bytes_down"].sum() + training["bytes_up"].sum()) / 1e6
        rows.append(
            {
                "arm": arm,
                "rounds": count,
                "failed_rounds": int((whole["status"] != "ok").sum()),
                "seconds": float(replies["seconds"].sum()),
                "seconds_per_round": float(training["seconds"].sum() / max(count, 1)),
                "mb_down": float(replies["bytes_down"].sum() / 1e6),
                "mb_up": float(replies["bytes_up"].sum() / 1e6),
                "mb_per_round": float(megabytes / max(count, 1)),
            }
        )
    return pd.DataFrame(rows)

"""Summary statistics over cases: by arm, site, region and metric, with an interval of the mean.

A case that could not be scored stays in every number with the worst values of the convention. A method must
not gain from the cases on which it failed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fedbrats.data.regions import REGIONS
from fedbrats.metrics.interval import mean_interval
from fedbrats.metrics.table import Facts

ALL_SITES = "all"
CASE = ("arm", "site", "case", "region", "status")  # columns that say what a row is about
STATISTICS = ("n", "failed", "mean", "std", "median", "q25", "q75", "ci_low", "ci_high")
SUMMARY_COLUMNS = (
    *("arm", "site", "region", "metric", *STATISTICS),
    *("worst_site", "worst_mean", "convention"),
)


def summarise(cases: pd.DataFrame, metrics: Mapping[str, Facts], convention: str) -> pd.DataFrame:
    """Summarise scored cases in long form, one row per arm, site, region and metric.

    Args:
        cases: one row per case and region with the columns `CASE` and one per metric. A row whose status is not "ok"
            counts as failed and takes each metric's score of a failed case; without a region it counts for all of them.
        metrics: that are summarised, by name.
        convention: of `cases`; repeated in the last column.

    Returns:
        `SUMMARY_COLUMNS`: n cases, of which failed; mean, sample standard deviation (NaN for one case), median
        and quartiles; ci_low and ci_high, the 95 % interval of the mean (`metrics.interval`; NaN for few cases);
        worst_site, the site with the worst mean, and that mean. Site "all" pools the cases of all sites, so large
        sites weigh more; its interval is also one over sites. The order of the rows does not matter.

    Raises:
        ValueError: missing columns, no rows, an empty arm, site or case name, a site called "all", an "ok" row with
            a number that is missing or not finite, a case without one of the regions of its arm.
    """
    table = _checked(cases, metrics)
    rows = []
    for (arm, region), group in table.groupby(["arm", "region"], sort=False):
        sites = {str(site): _describe(part, metrics, False) for site, part in group.groupby("site")}
        for site, described in {ALL_SITES: _describe(group, metrics, True), **sites}.items():
            for metric, facts in metrics.items():
                means = {s: sites[s][metric]["mean"] for s in (sites if site == ALL_SITES else [site])}
                worst = (max if facts.lower_is_better else min)(means, key=means.__getitem__)
                row = {"arm": arm, "site": site, "region": region, "metric": metric, **described[metric]}
                row |= {"worst_site": worst, "worst_mean": means[worst], "convention": convention}
                rows.append(row)
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _describe(part: pd.DataFrame, metrics: Mapping[str, Facts], whole: bool) -> dict[str, dict[str, float]]:
    """Statistics of every metric over the rows of `part`; the same bits for any order of the rows."""
    described: dict[str, dict[str, float]] = {}
    sites, failed = part["site"].to_numpy(str), int((part["status"] != "ok").sum())
    for metric, facts in metrics.items():
        values = part[metric].to_numpy(float)
        order = np.lexsort((sites, values))  # by value, then by site
        column = values[order]
        q25, median, q75 = (float(v) for v in np.percentile(column, [25, 50, 75]))
        low, high = mean_interval(column, facts.ends, sites[order].tolist() if whole else None)
        described[metric] = {
            "n": len(column),
            "failed": failed,
            "mean": float(np.mean(column)),
            "std": float(np.std(column, ddof=1)) if len(column) > 1 else np.nan,
            **{"median": median, "q25": q25, "q75": q75},
            **{"ci_low": low, "ci_high": high},
        }
    return described


def _checked(cases: pd.DataFrame, metrics: Mapping[str, Facts]) -> pd.DataFrame:
    """Copy of `cases` with a row per region, failed rows at the worst values, sorted by arm and region."""
    missing = [c for c in (*CASE, *metrics) if c not in cases.columns]
    if missing:
        raise ValueError(f"cases: missing columns {missing}")
    if cases.empty:
        raise ValueError("cases: no rows, nothing to summarise")
    table = _every_region(cases[[*CASE, *metrics]])
    for column in ("arm", "site", "case"):
        if table[column].isna().any() or (table[column] == "").any():
            raise ValueError(f"cases: {column} is empty in some rows")
        table[column] = table[column].astype(str)
    if (table["site"] == ALL_SITES).any():
        raise ValueError(f'cases: a site cannot be called "{ALL_SITES}", that row pools all sites')
    failed = table["status"] != "ok"
    for metric, facts in metrics.items():
        table[metric] = table[metric].astype(float).mask(failed, facts.failed)
    bad = ~np.isfinite(table[list(metrics)].to_numpy(float)).all(axis=1)
    if bad.any():
        raise ValueError(f'cases: status is "ok" but a score is missing or infinite: {_named(table[bad])}')
    counts = table.groupby(["arm", "site", "case", "region"]).size().unstack("region", fill_value=0)
    for _, arm in counts.groupby("arm"):
        arm = arm.loc[:, arm.any()]  # some networks, and the floor, speak about WT only
        uneven = arm[arm.nunique(axis=1) > 1]
        if len(uneven):
            present = [region for region in REGIONS if region in arm.columns]
            some = [" / ".join(map(str, key)) for key in uneven.index[:5]]
            raise ValueError(f"cases: every case needs one row for each of {', '.join(present)}: {some}")
    order = {region: i for i, region in enumerate(REGIONS)}
    return table.assign(_order=table["region"].map(order)).sort_values(["arm", "_order"])


def _every_region(cases: pd.DataFrame) -> pd.DataFrame:
    """Turn each failed row without a region into one row per region."""
    whole = (cases["status"] != "ok") & (cases["region"].isna() | (cases["region"] == ""))
    spread = [cases[whole].assign(region=region) for region in REGIONS] if whole.any() else []
    table = pd.concat([cases[~whole], *spread], ignore_index=True)
    unknown = table[~table["region"].isin(REGIONS)]
    if len(unknown):
        raise ValueError(f"cases: unknown region, expected one of {', '.join(REGIONS)}: {_named(unknown)}")
    return table


def _named(rows: pd.DataFrame) -> str:
    first = rows[["arm", "site", "case", "region"]].astype(str).head(5)
    return "; ".join(" / ".join(row) for row in first.to_numpy())

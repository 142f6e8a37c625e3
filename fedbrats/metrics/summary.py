"""Summary statistics over cases: by arm, site, region and metric, with a bootstrap interval.

A case that could not be scored stays in every number with the worst values of the convention. A method must
not gain from the cases on which it failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedbrats.data.regions import REGIONS
from fedbrats.metrics.table import Facts

ALL_SITES = "all"
CASE = ("arm", "site", "case", "region", "status")  # columns that say what a row is about
STATISTICS = ("n", "failed", "mean", "std", "median", "q25", "q75", "ci_low", "ci_high")
SUMMARY_COLUMNS = (
    *("arm", "site", "region", "metric", *STATISTICS),
    *("worst_site", "worst_mean", "convention"),
)
# Rows are drawn in an order by these; whatever else is scored breaks ties only and so moves no interval of theirs.
_SORTED_BY = ("dice", "hd95", "sensitivity", "specificity", "lesion_dice", "lesion_hd95")
_BLOCK = 2_000_000  # numbers drawn at once; bounds the memory of the bootstrap


def summarise(
    cases: pd.DataFrame, metrics: Mapping[str, Facts], convention: str, bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Summarise scored cases in long form, one row per arm, site, region and metric.

    Args:
        cases: one row per case and region with the columns `CASE` and one per metric. A row whose status is not "ok"
            counts as failed and takes each metric's score of a failed case; without a region it counts for all of them.
        metrics: that are summarised, by name.
        convention: of `cases`; repeated in the last column.
        bootstrap: number of resamples of the interval.
        seed: of the resamples. The result does not depend on the order of the rows.

    Returns:
        `SUMMARY_COLUMNS`: n cases, of which failed; mean, sample standard deviation (0 for one case), median
        and quartiles; ci_low and ci_high, the 95 % percentile bootstrap interval of the mean over cases (the
        value itself for one case); worst_site, the site with the worst mean, and that mean. Site "all" pools
        the cases of all sites, so large sites weigh more.

    Raises:
        ValueError: missing columns, no rows, an empty arm, site or case name, bootstrap below 1, a site called
            "all", an "ok" row with a number that is missing or not finite, a case without one of the regions.
    """
    table, names = _checked(cases, metrics, bootstrap), list(metrics)
    rows = []
    for (arm, region), group in table.groupby(["arm", "region"], sort=False):
        sites = {str(site): _describe(part, names, bootstrap, seed) for site, part in group.groupby("site")}
        for site, described in {ALL_SITES: _describe(group, names, bootstrap, seed), **sites}.items():
            for metric, facts in metrics.items():
                means = {s: sites[s][metric]["mean"] for s in (sites if site == ALL_SITES else [site])}
                worst = (max if facts.lower_is_better else min)(means, key=means.__getitem__)
                row = {"arm": arm, "site": site, "region": region, "metric": metric, **described[metric]}
                row |= {"worst_site": worst, "worst_mean": means[worst], "convention": convention}
                rows.append(row)
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _describe(
    part: pd.DataFrame, names: Sequence[str], bootstrap: int, seed: int
) -> dict[str, dict[str, float]]:
    """Statistics of the metrics `names` over the rows of `part`; the same bits for any order of the rows."""
    values = part[list(names)].to_numpy(float)
    keys = sorted(range(len(names)), key=lambda i: names[i] in _SORTED_BY)
    values = values[np.lexsort(values.T[keys])]
    intervals = bootstrap_intervals(values, bootstrap, seed)
    described: dict[str, dict[str, float]] = {}
    for i, metric in enumerate(names):
        column = values[:, i]
        q25, median, q75 = (float(v) for v in np.percentile(column, [25, 50, 75]))
        described[metric] = {
            "n": len(column),
            "failed": int((part["status"] != "ok").sum()),
            "mean": float(np.mean(column)),
            "std": float(np.std(column, ddof=1)) if len(column) > 1 else 0.0,
            **{"median": median, "q25": q25, "q75": q75},
            **{"ci_low": intervals[i][0], "ci_high": intervals[i][1]},
        }
    return described


def bootstrap_intervals(values: np.ndarray, resamples: int, seed: int) -> list[tuple[float, float]]:
    """95 % percentile interval of the mean of each column of `values` [n, metrics], resampling rows."""
    n = len(values)
    if n == 1:
        return [(float(v), float(v)) for v in values[0]]
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // values.size)
    means = []
    for start in range(0, resamples, block):
        picks = rng.integers(0, n, size=(min(block, resamples - start), n))
        means.append(values[picks].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _checked(cases: pd.DataFrame, metrics: Mapping[str, Facts], bootstrap: int) -> pd.DataFrame:
    """Copy of `cases` with a row per region, failed rows at the worst values, sorted by arm and region."""
    missing = [c for c in (*CASE, *metrics) if c not in cases.columns]
    if missing:
        raise ValueError(f"cases: missing columns {missing}")
    if cases.empty:
        raise ValueError("cases: no rows, nothing to summarise")
    if bootstrap < 1:
        raise ValueError(f"metrics.bootstrap: must be at least 1, got {bootstrap}")
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
    present = [region for region in REGIONS if region in counts.columns]  # some networks predict WT only
    uneven = counts[counts.nunique(axis=1) > 1]
    if len(uneven):
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

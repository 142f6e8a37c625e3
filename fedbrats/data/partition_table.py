"""The table of a partition: for each site its cases, tumour volumes and intensities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedbrats.data.cases import MODALITIES
from fedbrats.data.partition import Site
from fedbrats.data.regions import REGIONS


def partition_table(sites: Sequence[Site], case_stats: Mapping[str, Mapping]) -> pd.DataFrame:
    """Describe each site in one row.

    Args:
        sites: as `make_partition` returns them.
        case_stats: case name -> {"volumes_ml": {region: mL}, "intensity": {modality: {"mean", "std"}}}, raw
            intensities over non-zero voxels (the `meta` of a cached case).

    Returns:
        Columns site, cases, train, val, test, holdout; per region `wt_ml_mean` and `wt_ml_sd` (over cases,
        mL); `et_free` (cases without ET); per modality `t1_mean` and `t1_sd`: mean and standard deviation
        over the non-zero voxels of the site, each case with equal weight. The deviation over cases divides by
        n - 1 and is None for one case; that over voxels is the voxels'.

    Raises:
        ValueError: a case without statistics.
    """
    missing = sorted({name for site in sites for name in site.cases} - set(case_stats))
    if missing:
        raise ValueError(f"no statistics of {', '.join(missing[:5])}")
    return pd.DataFrame([_row(site, [case_stats[name] for name in site.cases]) for site in sites])


def _row(site: Site, stats: Sequence[Mapping]) -> dict[str, object]:
    row: dict[str, object] = {
        "site": site.name,
        "cases": len(stats),
        "train": len(site.train),
        "val": len(site.val),
        "test": len(site.test),
        "holdout": site.holdout,
    }
    for region in REGIONS:
        volumes = np.array([case["volumes_ml"][region] for case in stats], float)
        row[f"{region.lower()}_ml_mean"] = float(volumes.mean())
        row[f"{region.lower()}_ml_sd"] = float(volumes.std(ddof=1)) if len(volumes) > 1 else None
    row["et_free"] = sum(case["volumes_ml"]["ET"] == 0 for case in stats)
    for modality in MODALITIES:
        means = np.array([case["intensity"][modality]["mean"] for case in stats], float)
        spreads = np.array([case["intensity"][modality]["std"] for case in stats], float)
        row[f"{modality}_mean"] = float(means.mean())
        row[f"{modality}_sd"] = float(np.sqrt(np.mean(spreads**2) + means.var()))
    return row

"""Who has how many cases, and how they differ."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fedbrats.data.patients import Understood
from fedbrats.report.cells import MISSING, number
from fedbrats.report.page import Section, data_uri
from fedbrats.report.results import Results
from fedbrats.report.sections.partition_figures import intensity_figure, partition_figure, partition_frame
from fedbrats.report.sections.partition_tables import teaching
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task


def section(results: Results) -> Section:
    """Cases, tumour volumes and raw intensities of each institution."""
    run = results.run
    there = bool(run.partition.get("sites"))
    context = {
        "rows": _partition_rows(run),
        "patients": [
            str(Understood(row["rule"], row["scans"], row["patients"], row["known"]))
            for row in run.partition.get("patients", [])
        ],
        "regions": task.REGIONS,
        "teaching": teaching(run),
        "figure": data_uri(partition_figure(run), "svg") if there else "",
        "intensity": data_uri(intensity_figure(run), "svg") if there else "",
    }
    return Section("partition", "Partition", context, nav="Partition")


def _partition_rows(run: RunFolder) -> list[dict[str, Any]]:
    rows = []
    for row in partition_frame(run).to_dict(orient="records"):
        volumes = [_mean_sd(row, f"{region.lower()}_ml") for region in task.REGIONS]
        free = row.get("et_free")
        rows.append(
            {**row, "volumes": volumes, "et_free": MISSING if free is None or pd.isna(free) else int(free)}
        )
    return rows


def _mean_sd(row: dict[str, Any], name: str) -> str:
    mean, spread = number(row.get(f"{name}_mean"), 1), number(row.get(f"{name}_sd"), 1)
    return mean if spread == MISSING or row["cases"] < 2 else f"{mean} ± {spread}"

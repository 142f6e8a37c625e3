"""What each step of the post-processing did to the scores, and the values that were fitted for it.

From `steps.csv` and `postprocess.json` of a run folder, or `steps.csv` of a folder of predictions; without
post-processing there is neither.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.metrics.table import BY_NAME
from fedbrats.report.arms import arm_rank, arm_title, report_arms
from fedbrats.report.cells import MISSING, Cell, number
from fedbrats.runs.case_tables import STEPS
from fedbrats.runs.reading import read_json
from fedbrats.tasks import segmentation as task


def step_table(folder: Path) -> pd.DataFrame:
    """Mean scores before any step (order 0) and after each.

    A case counts once per arm, with its mean over the models where several local ones segmented it. Cases that could
    not be scored are not in it.

    Returns:
        One row per arm, region and order: arm, region, order, step (name), n (cases), the metrics `task.SHOWN`,
        <metric>_change of each (from the order before), changed (cases in which the step changed a voxel of the
        region, by any model).

    Raises:
        RunFolderError: `steps.csv` cannot be read.
    """
    rows = STEPS.read(folder)
    rows = rows.assign(arm=report_arms(rows), order=rows["order"].astype(int))
    keys = ["arm", "region", "order"]
    cases = rows.groupby([*keys, "site", "case"], as_index=False).agg(
        **{metric: (metric, "mean") for metric in task.SHOWN},
        changed=("changed_voxels", "max"),
        step=("step", "first"),
    )
    table = cases.groupby(keys, as_index=False).agg(
        step=("step", "first"),
        n=(task.MAIN, "size"),
        **{metric: (metric, "mean") for metric in task.SHOWN},
        changed=("changed", lambda voxels: int((voxels > 0).sum())),
    )
    place = table["arm"].map({arm: arm_rank(arm) for arm in set(table["arm"])})
    table = table.assign(place=place, channel=table["region"].map(task.REGIONS.index))
    table = table.sort_values(["place", "channel", "order"], ignore_index=True)
    for metric in task.SHOWN:
        table[f"{metric}_change"] = table.groupby(["arm", "region"])[metric].diff()
    return table.drop(columns=["place", "channel"])


def postprocess_context(folder: Path) -> dict[str, Any] | None:
    """What a page prints of the post-processing; None where there was none.

    Raises:
        RunFolderError: `steps.csv` or `postprocess.json` cannot be read.
    """
    table, described = step_table(folder), read_json(folder / "postprocess.json") or {}
    described = {arm: steps for arm, steps in described.items() if steps}
    if not len(table) and not described:
        return None
    groups = table.groupby(["arm", "region"], sort=False)
    return {
        "steps": _step_names(described) or [*table[table["order"] > 0].groupby("order")["step"].first()],
        "rows": [_row(part.to_dict(orient="records")) for _, part in groups],
        "shown": [BY_NAME[metric] for metric in task.SHOWN],
        "orders": range(int(table["order"].max()) + 1) if len(table) else range(0),
        "parameters": parameter_rows(described),
    }


def parameter_rows(described: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """One row per arm, step and fitted parameter: title, step, parameter, used (the median), sites (what each found).

    The models that institutions trained alone are one row; each uses the value of its own institution.

    Args:
        described: content of `postprocess.json`.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for arm, steps in described.items():
        local = arm.startswith("local:")
        for order, step in enumerate(steps, start=1):
            for name, value in (step.get("parameters") or {}).items():
                key = ("local" if local else arm, f"{order}. {words(step)}", name)
                row = found.setdefault(key, {"used": None if local else value, "sites": {}})
                row["sites"] |= {s: v[name] for s, v in (step.get("sites") or {}).items() if name in v}
    ordered = sorted(found.items(), key=lambda item: (arm_rank(item[0][0]), item[0][1]))
    return [
        {
            "arm": arm,
            "title": "Local models" if arm == "local" else arm_title(arm),
            "step": step,
            "parameter": name,
            "used": "its own" if row["used"] is None else f"{row['used']:.4g}",
            "sites": "; ".join(f"{site} {value:.4g}" for site, value in row["sites"].items()) or MISSING,
        }
        for (arm, step, name), row in ordered
    ]


def words(step: dict[str, Any]) -> str:
    """Class name of a step in small letters: "MinimumVolume" is "minimum volume"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(step.get("step", "step"))).lower()


def _step_names(described: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Name of each step, with its numbers where all arms have the same."""
    lists = list(described.values())
    names = []
    for index in range(max(map(len, lists), default=0)):
        steps = [steps[index] for steps in lists if index < len(steps)]
        same = {str(step.get("name") or words(step)) for step in steps}
        general = re.sub(r"\d[\d.e+-]*", "…", min(same))
        names.append(general + " (values by arm below)" if len(same) > 1 else same.pop())
    return names


def _row(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One printed row: an arm and a region, with a cell per order for each metric."""
    first = records[0]
    return {
        "arm": first["arm"],
        "title": arm_title(first["arm"]),
        "region": first["region"],
        "n": first["n"],
        "scores": [[_cell(row, metric) for row in records] for metric in task.SHOWN],
        "changed": [str(row["changed"]) for row in records[1:]],
    }


def _cell(row: dict[str, Any], metric: str) -> Cell:
    decimals, change = BY_NAME[metric].decimals, row[f"{metric}_change"]
    if np.isnan(change):
        return Cell(number(row[metric], decimals))
    return Cell(number(row[metric], decimals), f"{round(change, decimals) + 0.0:+.{decimals}f}")

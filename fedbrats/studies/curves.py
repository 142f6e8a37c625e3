"""How validation rose in the jobs of the methods of a sweep."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from fedbrats.runs.curves import AXES
from fedbrats.studies.methods import Method
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.task import Task


def method_curves(methods: Iterable[Method], of: Task = task.SEGMENTATION) -> pd.DataFrame:
    """Curves of the methods that train one model: method, arm, round, the other `AXES`, region, mean, least, most.

    of: the task of the jobs, whose main score is validated.

    Mean, least and most are over the jobs; only rounds that all of a method's jobs have validated.
    """
    rows = []
    for method in methods:
        parts = [job.curve[job.curve["arm"] == method.arm] for job in method.jobs if len(job.curve)]
        if len(parts) < len(method.jobs):
            continue
        for round_, part in pd.concat(parts).groupby("round"):
            if len(part) < len(method.jobs):
                continue
            places = {axis: part[axis].mean() for axis in AXES if axis != "round"}
            for region, column in of.columns.items():
                if part[column].notna().all():
                    values = {
                        "mean": part[column].mean(),
                        "least": part[column].min(),
                        "most": part[column].max(),
                    }
                    head = {"method": method.name, "arm": method.arm, "round": round_}
                    rows.append({**head, **places, "region": region, **values})
    return pd.DataFrame(rows, columns=["method", "arm", *AXES, "region", "mean", "least", "most"])

"""Main score over epsilon: what privacy costs, over the jobs of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from fedbrats.report.cells import number
from fedbrats.report.compare.figures import epsilon_curve
from fedbrats.report.epsilon import epsilon_text
from fedbrats.report.page import data_uri
from fedbrats.report.tables import EVERY_SITE
from fedbrats.studies.jobs import NEUTRAL, Job, described, differing, is_seed, values_of
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.task import Task

# Settings that say how much is spent: they place a job on its line. Other settings of the mechanism make lines.
SPENDING = ("privacy._target_", "privacy.sigma", "privacy.target_epsilon", "privacy.max_epsilon")
COLUMNS = ["line", "setting", "epsilon", "region", "mean", "sd", "jobs"]


def score_over_epsilon(jobs: list[Job]) -> pd.DataFrame:
    """Mean of the main score of the federated model over all test cases, by epsilon.

    Jobs that differ only in seeds are one point, grouped by the configured target or sigma. Jobs without privacy are
    the point at infinity of every line that shares their other settings.

    Returns:
        One row per line, point and region, by rising epsilon: line (the settings that differ otherwise), setting
        (sigma or target; "" without privacy), epsilon (the largest of the jobs), region, mean, sd (sample standard
        deviation over the jobs, NaN for one), jobs. No rows where no job is private.
    """
    jobs = [job for job in jobs if job.status == "finished"]
    if all(math.isinf(job.epsilon) for job in jobs):
        return pd.DataFrame(columns=COLUMNS)
    keys = [key for key in differing(jobs) if not is_seed(key)]
    general = [key for key in keys if not key.startswith(("privacy", *NEUTRAL))]
    special = [key for key in keys if key.startswith("privacy") and key not in SPENDING]
    points: dict[tuple[str, ...], dict[tuple[str, ...], list[Job]]] = {}
    for job in jobs:
        if not math.isinf(job.epsilon):
            line = values_of(job, [*general, *special])
            points.setdefault(line, {}).setdefault(values_of(job, [*SPENDING]), []).append(job)
    for job in jobs:
        if math.isinf(job.epsilon):
            shared = [line for line in points if line[: len(general)] == values_of(job, general)]
            for line in shared or [(*values_of(job, general), *values_of(job, special))]:
                points.setdefault(line, {}).setdefault((), []).append(job)
    rows = [row for line in points.values() for row in _rows(line, [*general, *special], jobs[0].task)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(line: dict[tuple[str, ...], list[Job]], keys: list[str], of: Task) -> Iterator[dict[str, Any]]:
    """Rows of one line, its points by rising epsilon."""
    private = next((members[0] for members in line.values() if not math.isinf(members[0].epsilon)), None)
    name = described(private or next(iter(line.values()))[0], keys)
    for members in sorted(line.values(), key=lambda members: max(job.epsilon for job in members)):
        epsilon = max(job.epsilon for job in members)
        setting = "" if math.isinf(epsilon) else _spending(members[0])
        means = {region: [_mean(job, region, of) for job in members] for region in of.columns}
        for region, values in means.items():
            known = pd.Series(values, dtype=float).dropna()
            if len(known):
                row = {"line": name, "setting": setting, "epsilon": epsilon, "region": region}
                yield {**row, "mean": known.mean(), "sd": known.std(), "jobs": len(known)}


def _spending(job: Job) -> str:
    settings = {key: job.settings.get(f"privacy.{key}") for key in ("target_epsilon", "sigma")}
    return ", ".join(f"{key.split('_')[0]} {value}" for key, value in settings.items() if value is not None)


def _mean(job: Job, region: str, of: Task) -> float:
    table = job.table
    cell = table[(table["arm"] == "federated") & (table["site"] == EVERY_SITE) & (table["region"] == region)]
    return float(cell[of.compared[0]].iloc[0]) if len(cell) else math.nan


def curve_context(curve: pd.DataFrame, of: Task = task.SEGMENTATION) -> dict[str, Any] | None:
    """What `compare.html` prints of `score_over_epsilon` of jobs of a task; None without any row."""
    if not len(curve):
        return None
    regions = of.in_order(set(curve["region"]))
    rows = []
    for (line, epsilon, setting), part in curve.groupby(["line", "epsilon", "setting"], sort=False):
        cells = part.set_index("region")
        means = [(number(cells["mean"].get(r), 3), number(cells["sd"].get(r), 3)) for r in regions]
        head = {
            "line": line or "All jobs",
            "epsilon": epsilon_text(epsilon),
            "setting": setting or "no privacy",
        }
        rows.append({**head, "jobs": int(part["jobs"].max()), "means": means})
    return {"rows": rows, "regions": regions, "figure": data_uri(epsilon_curve(curve, of), "svg")}

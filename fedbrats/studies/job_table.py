"""One flat table of arms, institutions and regions over the jobs of a sweep: `compare.csv`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.metrics.table import BY_NAME, Facts
from fedbrats.studies.jobs import PRIVATE_ARMS, SEED, Job, differing, read_jobs, shown
from fedbrats.studies.methods import task_of
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION, FACTS

OVER_SEEDS = "over seeds"


def result_columns(metrics: Iterable[str]) -> list[str]:
    """Columns of `compare` after those that say what a row is about."""
    ends = ("mean", "ci_low", "ci_high", "sd_seeds")
    numbers = [f"{metric}_{end}" for metric in metrics for end in ends]
    return ["n", *numbers, "percent_of_pooled", "epsilon", "convention", "status", "reason"]


def compare(sweep: Path) -> pd.DataFrame:
    """Arms, institutions and regions of every job of a sweep.

    Returns:
        One row per job, arm, site ("all" first) and region: job, the settings in which jobs differ (text), arm, site,
        unseen, region, then `result_columns` of every metric (intervals: 95 % over cases). A failed job is one row with
        its reason. Jobs that differ only in `seed` are followed by rows with job "over seeds (k)": mean and sample
        standard deviation of the job means. epsilon: the largest of a site for what the federation of a private job
        released, inf for arms and jobs without noise; empty where no job is private.

    Raises:
        RunFolderError: no such folder, no job in it, or jobs of different tasks.
    """
    return job_table(read_jobs(sweep))


def job_table(jobs: list[Job]) -> pd.DataFrame:
    """The table of `compare` from jobs that are read already; of jobs that classify the region is the label."""
    keys, metrics = differing(jobs), metrics_of(jobs)
    rows = [row for job in jobs for row in _job_rows(job, keys)]
    columns = ["job", *keys, "arm", "site", "unseen", "region", *result_columns(metrics)]
    frame = pd.DataFrame(rows, columns=columns)
    if all(math.isinf(job.epsilon) for job in jobs):
        frame["epsilon"] = math.nan
    return pd.concat([frame, *_seed_rows(frame, jobs, keys)], ignore_index=True)[columns]


def metrics_of(jobs: list[Job]) -> dict[str, Facts]:
    """The task's own metrics, the one that methods are compared by first, and those of any job."""
    if task_of(jobs) is CLASSIFICATION:
        return dict(FACTS)
    found = {metric: BY_NAME[metric].facts("") for metric in task.SHOWN}
    for job in jobs:
        found |= {metric: facts for metric, facts in job.metrics.items() if metric not in found}
    return found


def _job_rows(job: Job, keys: list[str]) -> list[dict[str, Any]]:
    head = {"job": job.name, **{key: shown(job.settings.get(key)) for key in keys}}
    head |= {"status": job.status, "reason": job.reason}
    if job.status == "failed":
        return [head]
    rows = []
    for row in job.table.to_dict(orient="records"):
        result = {name: row[name] for name in ("arm", "site", "unseen", "region", "n", "percent_of_pooled")}
        for metric in job.metrics:
            result |= {f"{metric}_mean": row[metric]}
            result |= {f"{metric}_ci_{end}": row[f"{metric}_{end}"] for end in ("low", "high")}
        result |= {"epsilon": job.epsilon if row["arm"] in PRIVATE_ARMS else math.inf}
        rows.append({**head, **result, "convention": job.convention, "reason": row["note"]})
    return rows


def _seed_rows(frame: pd.DataFrame, jobs: list[Job], keys: list[str]) -> list[pd.DataFrame]:
    """Mean and standard deviation over the jobs that share every setting but the seed."""
    others = [key for key in keys if key != SEED]
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if job.status == "finished":
            groups.setdefault(tuple(shown(job.settings.get(key)) for key in others), []).append(job)
    out = []
    for values, members in groups.items():
        if len({shown(job.settings.get(SEED)) for job in members}) > 1:
            part = frame[frame["job"].isin([job.name for job in members])]
            head = {"job": f"{OVER_SEEDS} ({len(members)})", **dict(zip(others, values)), SEED: "all"}
            metrics = [metric for metric in metrics_of(jobs) if f"{metric}_mean" in part]
            out.append(_over_seeds(part, head, len(members), metrics))
    return out


def _over_seeds(part: pd.DataFrame, head: dict[str, Any], jobs: int, metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    for (arm, site, region), cell in part.groupby(["arm", "site", "region"], sort=False):
        known = int(cell[f"{metrics[0]}_mean"].notna().sum())
        note = "" if known == jobs else f"over seeds: some means are of {known} of {jobs} jobs"
        row = {**head, "arm": arm, "site": site, "region": region, "status": "finished", "reason": note}
        row |= {name: cell[name].iloc[0] for name in ("unseen", "convention")}
        row |= {"epsilon": cell["epsilon"].max()}
        row |= {"n": cell["n"].max(), "percent_of_pooled": cell["percent_of_pooled"].mean()}
        for metric in metrics:
            means = cell[f"{metric}_mean"]
            row |= {f"{metric}_mean": means.mean(), f"{metric}_sd_seeds": means.std()}
        rows.append(row)
    return pd.DataFrame(rows)

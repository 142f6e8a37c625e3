"""The methods of a sweep: what a paper's table has a row for. Jobs that differ in nothing but seeds are one method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.config.schema import FLOOR
from fedbrats.data.sentences import some
from fedbrats.metrics.table import Facts
from fedbrats.report.arms import arm_rank, arm_title
from fedbrats.report.tables import EVERY_SITE
from fedbrats.runs.reading import RunFolderError
from fedbrats.studies.jobs import (
    NEUTRAL,
    PRIVATE_ARMS,
    Job,
    class_of,
    described,
    differing,
    is_seed,
    named,
    values_of,
)
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.task import Task

GROUPS = ("strategy", "personalization", "privacy")  # that name a method
PLAIN = ("pooled", "pooled_in_a_row", "local", "local_elsewhere", FLOOR)  # arms that know nothing of these
OF_FLOOR = ("data", "partition", "metrics", "scenario", "report.floor")  # all that the floor knows of
NETWORK = "model._target_"
OF_NETWORK = (
    "model.",
    "loss.",
    "train.",
    "inference.",
    "postprocess.",
)  # groups that a file of conf/model may set
COSTS = ("mb_to_95", "hours_to_95")
OUTCOME = ("mean", "sd_seeds")
HEAD = ("method", "arm", "region", "metric")
COLUMNS = (
    *(*HEAD, "seeds", "cases", *OUTCOME, "worst_site", "worst_mean", "gap", "spread"),
    *("percent_of_pooled", "epsilon", *COSTS, "jobs"),
)


@dataclass(frozen=True)
class Method:
    """One arm of jobs that are the same but for seeds."""

    name: str
    arm: str
    jobs: tuple[Job, ...]

    def scores(self, metrics: Iterable[str]) -> pd.DataFrame:
        """Scores by people (seeds of the data), site, case and region, means over the jobs that have them, or NaN."""
        parts = [job.scores[job.scores["arm"] == self.arm].assign(people=people_of(job)) for job in self.jobs]
        found = pd.concat(parts)
        found = found.reindex(columns=[*found.columns, *[m for m in metrics if m not in found]])
        return found.groupby(["people", "site", "case", "region"])[list(metrics)].mean()


def people_of(job: Job) -> str:
    """Whose cases a job has: the seeds of its data."""
    return str(values_of(job, [key for key in job.settings if is_seed(key) and key.startswith("data.")]))


def task_of(jobs: Iterable[Job]) -> Task:
    """The task that all jobs have whose settings are known.

    Raises:
        RunFolderError: they have different ones; the message names the jobs.
    """
    tasks, names = {task.SEGMENTATION.name: task.SEGMENTATION}, dict[str, list[str]]()
    for job in jobs:
        if job.complete and job.settings:
            tasks[job.task.name] = job.task
            names.setdefault(job.task.name, []).append(job.name)
    if len(names) > 1:
        said = "; ".join(f"{name}: {some(of)}" for name, of in sorted(names.items()))
        raise RunFolderError(
            f"jobs of different tasks (task.name) cannot be compared: {said}; give each task a folder of its own"
        )
    return tasks[next(iter(names), task.SEGMENTATION.name)]


def check_comparable(jobs: Iterable[Job]) -> None:
    """Check that the numbers of the finished jobs may stand in one table.

    Raises:
        RunFolderError: they were scored by different conventions; the message names the jobs.
    """
    by_convention: dict[str, list[str]] = {}
    for job in jobs:
        if job.status == "finished":
            by_convention.setdefault(job.convention, []).append(job.name)
    if len(by_convention) > 1:
        said = "; ".join(f"{name}: {some(names)}" for name, names in sorted(by_convention.items()))
        raise RunFolderError(
            f"scores of different conventions (metrics.convention) cannot be compared: {said}; compare each on its "
            "own, or score the predictions again with fedbrats evaluate"
        )


def methods_of(jobs: Iterable[Job]) -> list[Method]:
    """The methods of the finished jobs: federated and personal ones in the order of the jobs, then the baselines.

    Baselines of jobs that differ only in what these know nothing of are one method, with one job for each set of seeds.
    """
    good = [job for job in jobs if job.status == "finished" and len(job.table)]
    differ, brought = differing(good), set(brought_by_networks(good))
    found: dict[tuple[Any, ...], list[Job]] = {}
    names: dict[tuple[Any, ...], str] = {}
    for job in good:
        for arm in dict.fromkeys(job.table["arm"]):
            known = _known(arm, differ)
            seeds, others = [k for k in known if is_seed(k)], [k for k in known if not is_seed(k)]
            group = (arm in PLAIN, arm_rank(arm) if arm in PLAIN else (), arm, values_of(job, others))
            members = found.setdefault(group, [])
            if arm not in PLAIN or values_of(job, seeds) not in [
                values_of(other, seeds) for other in members
            ]:
                members.append(job)
            rest = [key for key in others if not key.startswith(GROUPS) and key not in brought]
            names.setdefault(group, _name(job, arm, good, rest))
    order = sorted(found, key=lambda group: group[:2])  # stable: jobs stay in their order
    return [Method(names[group], group[2], tuple(found[group])) for group in order]


def brought_by_networks(jobs: Iterable[Job]) -> list[str]:
    """Settings of the finished jobs that differ with the network only, as a file of conf/model brings them."""
    good = [job for job in jobs if job.status == "finished" and len(job.table)]

    def kinds(*keys: str) -> int:
        return len({values_of(job, list(keys)) for job in good})

    keys = [key for key in differing(good) if key.startswith(OF_NETWORK) and key != NETWORK]
    return [key for key in keys if kinds(NETWORK, key) == kinds(NETWORK)]


def recipes(jobs: Iterable[Job]) -> list[str]:
    """What of `brought_by_networks` is not the network itself, for a sentence, such as "loss" and "train.batch"."""
    found = [key.split(".") for key in brought_by_networks(jobs) if not key.startswith("model.")]
    return list(dict.fromkeys(".".join(k[: 2 if k[0] in ("train", "inference") else 1]) for k in found))


def _known(arm: str, differ: list[str]) -> list[str]:
    """The settings among `differ`, in which jobs differ, that decide what comes out of `arm`."""
    if arm == FLOOR:
        return [key for key in differ if key.startswith(OF_FLOOR) and key != "data.cache"]
    known = [key for key in differ if not key.startswith(NEUTRAL)]
    return [key for key in known if is_seed(key) or not key.startswith(GROUPS)] if arm in PLAIN else known


def _name(job: Job, arm: str, jobs: list[Job], others: list[str]) -> str:
    """Such as "FedProx (mu = 0.01)", "FedAvg, BnLocal, personal", "Pooled"; with whatever else differs behind it."""
    parts = [arm_title(arm)] if arm in PLAIN else [named(job, "strategy", jobs)]
    if arm not in PLAIN:
        for group in GROUPS[1:]:
            parts += [named(job, group, jobs)] if class_of(job, group) != "-" else []
        parts += [arm_title(arm).lower()] if arm != "federated" else []
    rest = described(job, others)
    return ", ".join([*parts, *([rest] if rest else [])])


def method_table(
    methods: Iterable[Method], metrics: Mapping[str, Facts], of: Task = task.SEGMENTATION
) -> pd.DataFrame:
    """One row per method, region and metric, columns `COLUMNS`; of: the task of the jobs.

    mean and sd_seeds: over the jobs, of the mean over all test cases (sample standard deviation, NaN for one job);
    worst_site and worst_mean: the institution with the worst mean over the jobs; gap: between best and worst
    institution; spread: standard deviation over institutions (population); mb_to_95, hours_to_95: megabytes that had
    travelled, and simulated hours, when validation reached 95 % of its last value; epsilon: the largest, inf without
    privacy; jobs: whose numbers these are.
    """
    rows = []
    for method in methods:
        table = pd.concat(
            [job.table[job.table["arm"] == method.arm].assign(job=job.name) for job in method.jobs]
        )
        overall = table[table["site"] == EVERY_SITE]
        costs = {name: _mean_cost(method, name) for name in COSTS}
        for region in of.in_order(set(table["region"])):
            mine, sites = overall[overall["region"] == region], table[table["region"] == region]
            sites = sites[sites["site"] != EVERY_SITE]
            for metric, facts in metrics.items():
                if metric not in table or mine[metric].isna().all():
                    continue
                rows.append(
                    {
                        **dict(zip(HEAD, (method.name, method.arm, region, metric), strict=True)),
                        "seeds": len(method.jobs),
                        "cases": int(mine["n"].max()),
                        "mean": mine[metric].mean(),
                        "sd_seeds": mine[metric].std(),
                        **_over_sites(sites.groupby("site")[metric].mean().dropna(), facts.lower_is_better),
                        "percent_of_pooled": mine["percent_of_pooled"].mean()
                        if metric == task.MAIN
                        else np.nan,
                        "epsilon": max(j.epsilon for j in method.jobs)
                        if method.arm in PRIVATE_ARMS
                        else np.inf,
                        **costs,
                        "jobs": "; ".join(job.name for job in method.jobs),
                    }
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _mean_cost(method: Method, name: str) -> float:
    """Mean over the jobs that tell it, NaN for arms that exchange nothing."""
    told = [getattr(job, name) for job in method.jobs if not np.isnan(getattr(job, name))]
    return float(np.mean(told)) if told and method.arm in PRIVATE_ARMS else math.nan


def _over_sites(means: pd.Series, lower_is_better: bool) -> dict[str, Any]:
    if not len(means):
        return {"worst_site": "", "worst_mean": np.nan, "gap": np.nan, "spread": np.nan}
    worst = means.idxmax() if lower_is_better else means.idxmin()
    gap, spread = float(means.max() - means.min()), float(means.std(ddof=0))
    return {"worst_site": worst, "worst_mean": float(means[worst]), "gap": gap, "spread": spread}


def institution_means(methods: Iterable[Method], metrics: Iterable[str]) -> pd.DataFrame:
    """Mean over the jobs of every method by institution: method, arm, site, unseen, region, n, then the metrics."""
    rows = []
    for method in methods:
        table = pd.concat([job.table[job.table["arm"] == method.arm] for job in method.jobs])
        table = table[(table["site"] != EVERY_SITE) & (table["n"] > 0)]
        known = [metric for metric in metrics if metric in table]
        for (site, unseen, region), part in table.groupby(["site", "unseen", "region"], sort=False):
            head = {
                "method": method.name,
                "arm": method.arm,
                "site": site,
                "unseen": bool(unseen),
                "region": region,
            }
            rows.append({**head, "n": int(part["n"].max()), **part[known].mean().to_dict()})
    return pd.DataFrame(rows, columns=["method", "arm", "site", "unseen", "region", "n", *metrics])

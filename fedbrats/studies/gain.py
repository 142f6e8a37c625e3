"""What a method gains over plain averaging, case by case, over the seeds of a sweep.

Jobs are matched by equal settings, seeds included, apart from strategy and personalisation, and from what leaves the
federated model as it is: which other arms are trained, and on what machine. Two intervals answer two
questions: over seeds (Student's t on the mean gain of each seed) whether training again would show the gain, over
cases and institutions (of the gain of each case, averaged over the seeds) whether other patients would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from fedbrats.metrics.interval import mean_interval
from fedbrats.report.arms import arm_title
from fedbrats.report.cells import MISSING
from fedbrats.report.compare.figures import gain_figure
from fedbrats.report.page import data_uri
from fedbrats.studies.jobs import (
    NEUTRAL,
    Job,
    class_of,
    described,
    differing,
    is_seed,
    named,
    read_jobs,
    values_of,
)
from fedbrats.tasks import segmentation as task

SHIFT = "data.phantom.shift"
PLAIN = "FedAvg"  # what others are measured against, where a sweep has it
KEYS = ["site", "case", "region"]
HEAD = ["method", "over", "shift", "setting", "region"]
COLUMNS = [*HEAD, "seeds", "cases", "gain", "seeds_low", "seeds_high", "cases_low", "cases_high"]


def gain_over(sweep: Path, over: str | None = None) -> pd.DataFrame:
    """Mean gain of every method of a sweep over plain jobs, by the main score of the same cases of sites that train.

    Methods are the personal arm of personalised jobs, the local arm, and the federated arm of other strategies.

    Args:
        sweep: folder with the jobs.
        over: class of the strategy to measure against; by default FedAvg where there is a plain job of it, else the
            first by name.

    Returns:
        One row per method, setting and region: method, over, shift (`data.phantom.shift`), setting (whatever else
        differs), region, seeds, cases, gain (mean over seeds of the mean over cases), seeds_low and seeds_high (95 %
        t-interval over seeds, NaN for one), cases_low and cases_high (95 % interval over cases and
        institutions).

    Raises:
        RunFolderError: no such folder, or no job in it.
    """
    return gains(read_jobs(sweep), over)[0]


def gains(jobs: list[Job], over: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """`gain_over` of jobs that are read already, and the names of the jobs that found no partner.

    Nothing of a sweep that has not both personalised and plain jobs.
    """
    jobs = [job for job in jobs if job.status == "finished" and "federated" in set(job.cases["arm"])]
    same = [key for key in differing(jobs) if not key.startswith(("strategy", "personalization", *NEUTRAL))]
    plain = [job for job in jobs if not _personalised(job)]
    if len(plain) in (0, len(jobs)):
        return _summed(pd.DataFrame()), []
    names = sorted({class_of(job, "strategy") for job in plain})
    over = over or (PLAIN if PLAIN in names else names[0])
    base = [job for job in plain if class_of(job, "strategy") == over]
    parts, unmatched = [], []
    for job, arm, method in _methods(jobs, base):
        partners = [other for other in base if values_of(other, same) == values_of(job, same)]
        partners = [job] if arm == "local" else partners
        unmatched += [] if partners else [job.name]
        for partner in partners:
            head = {"method": method, "over": named(partner, "strategy", base), **_where(job, same)}
            parts.append(_pairs(partner.cases, job.cases, arm).assign(**head))
    pairs = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return _summed(pairs), unmatched


def _personalised(job: Job) -> bool:
    return bool(job.settings.get("personalization._target_")) or "personal" in set(job.cases["arm"])


def _methods(jobs: list[Job], base: list[Job]) -> Iterator[tuple[Job, str, str]]:
    """(job, arm, name) of everything that is measured against the jobs `base`."""
    personal = [job for job in jobs if _personalised(job)]
    several = len({named(job, "strategy", personal) for job in personal}) > 1
    for job in jobs:
        if job in personal:
            strategy = f" with {named(job, 'strategy', personal)}" if several else ""
            yield job, "personal", named(job, "personalization", personal) + strategy
        elif job not in base:
            yield job, "federated", named(job, "strategy", jobs)
        elif "local" in set(job.cases["arm"]):
            yield job, "local", arm_title("local")


def _where(job: Job, same: list[str]) -> dict[str, Any]:
    """Shift and other settings of a job as columns; `seed` tells trainings apart, `people` the patients."""
    shift, seeds = job.settings.get(SHIFT), [key for key in same if is_seed(key)]
    return {
        "shift": float(shift) if isinstance(shift, int | float) else math.nan,
        "setting": described(job, [key for key in same if key != SHIFT and key not in seeds]),
        "seed": str(values_of(job, seeds)),
        "people": str(values_of(job, [key for key in seeds if key.startswith("data.")])),
    }


def _pairs(before: pd.DataFrame, after: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Gain of `arm` in the one job over the federated arm of the other, on the cases that both have."""
    pairs = after.loc[after["arm"] == arm, [*KEYS, task.MAIN]].merge(
        before.loc[before["arm"] == "federated", [*KEYS, task.MAIN]], on=KEYS, suffixes=("", "_plain")
    )
    return pairs[KEYS].assign(gain=pairs[task.MAIN] - pairs[f"{task.MAIN}_plain"])


def _summed(pairs: pd.DataFrame) -> pd.DataFrame:
    if not len(pairs):
        return pd.DataFrame(columns=COLUMNS)
    rows = []
    for head, part in pairs.groupby(HEAD, sort=False, dropna=False):
        means = part.groupby("seed")["gain"].mean()
        cases = part.groupby(["people", "site", "case"])["gain"].mean()
        low, high = t_interval(means.to_numpy(float))
        row = {**dict(zip(HEAD, head)), "seeds": len(means), "cases": len(cases), "gain": means.mean()}
        row |= {"seeds_low": low, "seeds_high": high}
        sites = cases.index.get_level_values("site").tolist()
        row |= dict(zip(("cases_low", "cases_high"), mean_interval(cases.to_numpy(float), task.GAINS, sites)))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    order = {region: place for place, region in enumerate(task.REGIONS)}
    place = frame.assign(region=frame["region"].map(order)).sort_values(HEAD, kind="stable").index
    return frame.loc[place].reset_index(drop=True)


def t_interval(means: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of few independent values, by Student's t; NaN for fewer than two."""
    count = len(means)
    if count < 2:
        return math.nan, math.nan
    half = float(stdtrit(count - 1, 0.975) * np.std(means, ddof=1) / math.sqrt(count))
    return float(np.mean(means)) - half, float(np.mean(means)) + half


def gain_context(gain: pd.DataFrame, unmatched: list[str]) -> dict[str, Any] | None:
    """What `compare.html` prints of `gains`; None where nothing could be compared and nobody looked for a partner."""
    if not len(gain) and not unmatched:
        return None
    regions = task.in_order(set(gain["region"]))
    rows = []
    for head, part in gain.groupby(HEAD[:-1], sort=False, dropna=False):
        cells = part.set_index("region").to_dict(orient="index")
        known = dict(zip(HEAD[:-1], head))
        shift = MISSING if pd.isna(known["shift"]) else f"{known['shift']:g}"
        counts = {name: int(part[name].max()) for name in ("seeds", "cases")}
        rows.append({**known, **counts, "shift": shift, "gain": [_cells(cells.get(r)) for r in regions]})
    figure = data_uri(gain_figure(gain), "svg") if gain["shift"].nunique() > 1 else ""
    settings = any(row["setting"] for row in rows)
    return {"rows": rows, "regions": regions, "figure": figure, "unmatched": unmatched, "settings": settings}


def _cells(row: dict[str, Any] | None) -> tuple[str, str, str]:
    """Gain, interval over seeds, interval over cases."""
    if row is None:
        return MISSING, "", ""
    seeds, cases = (
        "" if pd.isna(row[f"{over}_low"]) else f"{row[f'{over}_low']:+.3f} to {row[f'{over}_high']:+.3f}"
        for over in ("seeds", "cases")
    )
    return f"{row['gain']:+.3f}", seeds, cases

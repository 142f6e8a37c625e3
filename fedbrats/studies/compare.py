"""One table of arms and institutions over the jobs of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.data.sentences import plural
from fedbrats.metrics.table import BY_NAME, Facts
from fedbrats.report.arms import arm_title
from fedbrats.report.cells import MISSING, number
from fedbrats.report.epsilon import epsilon_text
from fedbrats.report.page import write_page
from fedbrats.report.tables import EVERY_SITE
from fedbrats.runs.table import write_frame
from fedbrats.studies.answer import write_answer
from fedbrats.studies.epsilon import curve_context, score_over_epsilon
from fedbrats.studies.gain import gain_context, gains
from fedbrats.studies.jobs import PRIVATE_ARMS, SEED, Job, differing, read_jobs, shown
from fedbrats.tasks import segmentation as task

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
        RunFolderError: no such folder, or no job in it.
    """
    return job_table(read_jobs(sweep))


def job_table(jobs: list[Job]) -> pd.DataFrame:
    """The table of `compare` from jobs that are read already."""
    keys, metrics = differing(jobs), metrics_of(jobs)
    rows = [row for job in jobs for row in _job_rows(job, keys)]
    columns = ["job", *keys, "arm", "site", "unseen", "region", *result_columns(metrics)]
    frame = pd.DataFrame(rows, columns=columns)
    if all(math.isinf(job.epsilon) for job in jobs):
        frame["epsilon"] = math.nan
    return pd.concat([frame, *_seed_rows(frame, jobs, keys)], ignore_index=True)[columns]


def metrics_of(jobs: list[Job]) -> dict[str, Facts]:
    """The task's own metrics and those of any job."""
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


def _over_seeds(part: pd.DataFrame, head: dict[str, Any], jobs: int, metrics: Iterable[str]) -> pd.DataFrame:
    rows = []
    for (arm, site, region), cell in part.groupby(["arm", "site", "region"], sort=False):
        known = int(cell[f"{task.MAIN}_mean"].notna().sum())
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


def write_comparison(sweep: Path, over: str | None = None) -> tuple[Path, ...]:
    """Write `compare.csv` and `compare.html` into the sweep folder, `gain.csv` where a method gains over another, and
    what `answer` writes.

    Args:
        sweep: folder of the jobs.
        over: method that the others are measured against; by default plain FedAvg where there is one.

    Returns:
        The paths written, `compare.html` last.

    Raises:
        RunFolderError: no such folder, no job in it, jobs that cannot be compared, or no such method.
    """
    jobs = read_jobs(sweep)
    answer = write_answer(sweep, jobs, metrics_of(jobs), over)
    frame, (gain, unmatched) = job_table(jobs), gains(jobs)
    tables = {"compare.csv": frame, **({"gain.csv": gain} if len(gain) else {})}
    for name, table in tables.items():
        write_frame(sweep / name, table)
    context = _context(sweep, frame, metrics_of(jobs)) | {
        "insecure": [job.name for job in jobs if job.insecure],
        "curve": curve_context(score_over_epsilon(jobs)),
        "gain": gain_context(gain, unmatched),
        "answer": answer,
        "cost": cost_of(jobs),
    }
    page = write_page(sweep / "compare.html", "compare/compare.html.j2", context)
    return (*(sweep / name for name in tables), page)


def cost_of(jobs: Sequence[Job]) -> str:
    """What it cost to try all of the jobs, in hours and in epsilon."""
    hours = sum(job.seconds for job in jobs) / 3600
    said = f"{plural(len(jobs), 'job')} took {hours:.2f} hours."
    private = [job.epsilon for job in jobs if not math.isinf(job.epsilon)]
    if len(private) > 1:
        said += (
            f" {len(private)} of them are private. Where they hold the same patients, choosing between them has spent "
            f"up to epsilon {sum(private):.2f} (their sum), not that of the one chosen."
        )
    return said


def _context(sweep: Path, frame: pd.DataFrame, metrics: Mapping[str, Facts]) -> dict[str, Any]:
    """What `compare.html` prints: failed jobs, then one row per job, arm and site with the regions side by side."""
    keys = list(frame.columns[1 : frame.columns.get_loc("arm")])
    failed = frame[frame["status"] == "failed"].to_dict(orient="records")
    good = frame[frame["status"] != "failed"]
    groups = good.groupby(["job", *keys, "arm", "site"], sort=False, dropna=False)
    rows = [_row(part.to_dict(orient="records"), keys, _regions(good), metrics) for _, part in groups]
    regions = _regions(good)
    notes = {note for text in good["reason"] for note in str(text).split("; ") if note}
    if len(good) and good.groupby("job")["region"].nunique().min() < len(regions):
        notes.add(f"not every network predicts all of {', '.join(regions)}")
    names = [name for name in dict.fromkeys(frame["job"]) if not name.startswith(OVER_SEEDS)]
    return {
        "title": f"Comparison of {plural(len(names), 'job')}",
        "folder": sweep.resolve().name,
        "keys": keys,
        "failed": [{**row, "settings": [row[key] for key in keys]} for row in failed],
        "blocks": [
            {"name": "All test cases", "rows": [row for row in rows if row["site"] == EVERY_SITE]},
            {"name": "By institution", "rows": [row for row in rows if row["site"] != EVERY_SITE]},
        ],
        "conventions": sorted({str(value) for value in good["convention"] if value}),
        "regions": regions,
        "shown": {metric: metrics[metric] for metric in task.SHOWN},
        "others": {metric: facts for metric, facts in metrics.items() if metric not in task.SHOWN},
        "notes": sorted(notes),
        "private": bool(good["epsilon"].notna().any()),
    }


def _regions(good: pd.DataFrame) -> tuple[str, ...]:
    """Regions that any job predicts; all where no job finished."""
    return task.in_order(set(good["region"])) or task.REGIONS


def _row(
    records: list[dict[str, Any]], keys: list[str], regions: Sequence[str], metrics: Mapping[str, Facts]
) -> dict[str, Any]:
    """One printed row from the rows of its regions."""
    first, cells = records[0], {row["region"]: row for row in records}
    return {
        "job": first["job"],
        "settings": [MISSING if pd.isna(first[key]) else first[key] for key in keys],
        "arm": first["arm"],
        "title": arm_title(first["arm"]),
        "site": first["site"],
        "unseen": bool(first["unseen"]),
        "n": max(int(row["n"]) for row in records),
        "epsilon": epsilon_text(first["epsilon"]),
        "over_seeds": first["job"].startswith(OVER_SEEDS),
        "scores": {
            metric: [_cell(cells.get(region), metric, facts.decimals) for region in regions]
            for metric, facts in metrics.items()
        },
        "percent": " / ".join(
            number(cells.get(region, {}).get("percent_of_pooled"), 1) for region in regions
        ),
    }


def _cell(row: dict[str, Any] | None, metric: str, decimals: int) -> tuple[str, str]:
    """Mean, and under it the interval over cases or the standard deviation over seeds; "-" for an absent region."""
    if row is None:
        return MISSING, ""
    mean = number(row[f"{metric}_mean"], decimals)
    if not pd.isna(row[f"{metric}_sd_seeds"]):
        return mean, f"SD {number(row[f'{metric}_sd_seeds'], decimals)}"
    if pd.isna(row[f"{metric}_ci_low"]):
        return mean, ""
    return (
        mean,
        f"{number(row[f'{metric}_ci_low'], decimals)} to {number(row[f'{metric}_ci_high'], decimals)}",
    )

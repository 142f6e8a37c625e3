"""The comparison of the jobs of a sweep: its tables, and a page that has them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.data.sentences import plural
from fedbrats.metrics.table import Facts
from fedbrats.report.arms import arm_title
from fedbrats.report.cells import MISSING, number
from fedbrats.report.epsilon import epsilon_text
from fedbrats.report.page import write_page
from fedbrats.report.tables import EVERY_SITE
from fedbrats.runs.table import write_frame
from fedbrats.studies.answer import write_answer
from fedbrats.studies.classified.answer import label_jobs, write_classified
from fedbrats.studies.epsilon import curve_context, score_over_epsilon
from fedbrats.studies.gain import gain_context, gains
from fedbrats.studies.job_table import OVER_SEEDS, job_table, metrics_of
from fedbrats.studies.jobs import Job, read_jobs
from fedbrats.studies.methods import brought_by_networks, task_of
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION, FACTS
from fedbrats.tasks.task import Task


def write_comparison(sweep: Path, over: str | None = None) -> tuple[Path, ...]:
    """Write `compare.csv` and `compare.html` into the sweep folder, `gain.csv` where a method gains over another, and
    what `answer` writes.

    Args:
        sweep: folder of the jobs.
        over: method that the others are measured against; by default plain FedAvg where there is one.

    Returns:
        The paths written, `compare.html` last.

    Raises:
        RunFolderError: no such folder, no job in it, jobs that cannot be compared, as those of different tasks, or no
            such method.
    """
    jobs = read_jobs(sweep)
    if task_of(jobs) is CLASSIFICATION:
        return _write_labels(sweep, jobs, over)
    answer = write_answer(sweep, jobs, metrics_of(jobs), over)
    frame, (gain, unmatched) = job_table(jobs), gains(jobs)
    tables = {"compare.csv": frame, **({"gain.csv": gain} if len(gain) else {})}
    for name, table in tables.items():
        write_frame(sweep / name, table)
    context = _context(sweep, _without_recipes(frame, jobs), metrics_of(jobs)) | _of_jobs(jobs)
    context |= {"gain": gain_context(gain, unmatched), "answer": answer}
    page = write_page(sweep / "compare.html", "compare/compare.html.j2", context)
    return (*(sweep / name for name in tables), page)


def _write_labels(sweep: Path, jobs: list[Job], over: str | None) -> tuple[Path, ...]:
    """The same of jobs that classify, which are told apart by the AUC over all of their cases."""
    answer = write_classified(sweep, jobs, over)
    write_frame(sweep / "compare.csv", label_jobs(jobs))
    frame = _without_recipes(job_table(jobs), jobs)
    context = _context(sweep, frame, FACTS, CLASSIFICATION) | _of_jobs(jobs)
    context |= {"answer": answer, "shown": FACTS}
    page = write_page(sweep / "compare.html", "compare/classified.html.j2", context)
    return sweep / "compare.csv", page


def _without_recipes(frame: pd.DataFrame, jobs: list[Job]) -> pd.DataFrame:
    """For a page, whose tables would have more columns than anybody can read; compare.csv has them all."""
    return frame.drop(columns=brought_by_networks(jobs), errors="ignore")


def _of_jobs(jobs: list[Job]) -> dict[str, Any]:
    """What a page says of the jobs, of whatever task."""
    return {
        "insecure": [job.name for job in jobs if job.insecure],
        "curve": curve_context(score_over_epsilon(jobs), task_of(jobs)),
        "cost": cost_of(jobs),
    }


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


def _context(
    sweep: Path, frame: pd.DataFrame, metrics: Mapping[str, Facts], of: Task = task.SEGMENTATION
) -> dict[str, Any]:
    """What `compare.html` prints: failed jobs, then one row per job, arm and site with the regions side by side."""
    keys = list(frame.columns[1 : frame.columns.get_loc("arm")])
    failed = frame[frame["status"] == "failed"].to_dict(orient="records")
    good = frame[frame["status"] != "failed"]
    groups = good.groupby(["job", *keys, "arm", "site"], sort=False, dropna=False)
    regions = of.in_order(set(good["region"])) or tuple(of.columns)
    rows = [_row(part.to_dict(orient="records"), keys, regions, metrics) for _, part in groups]
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
        "shown": {metric: metrics[metric] for metric in task.SHOWN if metric in metrics},
        "others": {metric: facts for metric, facts in metrics.items() if metric not in task.SHOWN},
        "notes": sorted(notes),
        "private": bool(good["epsilon"].notna().any()),
    }


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

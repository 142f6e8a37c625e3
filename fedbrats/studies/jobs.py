"""The jobs of a sweep, read: settings, tables, scores of the test cases, epsilon."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.config.schema import Config
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.table import Facts
from fedbrats.models.planned import PLANNED, asks_sites
from fedbrats.report.arms import merge_local_arms
from fedbrats.report.cells import MISSING, shorten
from fedbrats.report.epsilon import NO_EPSILON
from fedbrats.report.spent import read_spent
from fedbrats.report.tables import institution_table
from fedbrats.runs.case_tables import KEYS
from fedbrats.runs.classified import AGGREGATES, read_institutions
from fedbrats.runs.curves import curve_of
from fedbrats.runs.privacy_files import Privacy, asks_for_privacy
from fedbrats.runs.reading import RunFolderError, natural
from fedbrats.runs.run_folder import RunFolder, read_config, read_run
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION, FACTS, LABEL, by_institution, local_at_home
from fedbrats.tasks.task import Task

SEED = "seed"
NEUTRAL = (
    "arms",
    "runtime",
    "data.cache",
    "report.floor",
)  # settings that leave the federated model as it is
OPTIONAL = ("privacy", "personalization")  # groups that jobs may do without
PRIVATE_ARMS = ("federated", "personal")  # the others train without noise in a private run, too
SITE_STEPS = "train.site_steps"


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its folder below the sweep, its flat settings, its table; failed jobs have a reason."""

    name: str
    settings: dict[str, Any]
    table: pd.DataFrame  # of `institution_table`, or of `label_table`; empty for a failed job
    convention: str
    status: str  # "finished" or "failed"
    reason: str
    complete: bool  # whether the settings are those of `config.yaml`, resolved and whole
    epsilon: float = math.inf  # the largest of a site for what the federation released; inf without privacy
    insecure: bool = False  # whether the noise of a private job can be reproduced
    cases: pd.DataFrame = field(default_factory=pd.DataFrame)  # `KEYS`, main score; only sites that train
    metrics: dict[str, Facts] = field(default_factory=dict)  # that were scored
    scores: pd.DataFrame = field(
        default_factory=pd.DataFrame
    )  # `KEYS`, every metric, or the score and the label; of all sites
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)  # of `runs.curves.curve_of`
    seconds: float = 0.0  # that it took
    mb_to_95: float = math.nan  # megabytes that had travelled when validation reached 95 % of its last value
    hours_to_95: float = math.nan  # hours of the simulated clock until then

    @property
    def task(self) -> Task:
        """What it predicts."""
        classifies = self.settings.get("task.name") == CLASSIFICATION.name
        return CLASSIFICATION if classifies else task.SEGMENTATION


def find_jobs(sweep: Path) -> list[Path]:
    """Folders below `sweep` (or itself) that hold a run or were begun by Hydra, in natural order of their names.

    Raises:
        RunFolderError: no such folder, or no job in it.
    """
    if not sweep.is_dir():
        raise RunFolderError(f"{sweep}: no such folder")
    jobs = []
    for folder, below, files in os.walk(sweep):
        if "config.yaml" in files or ".hydra" in below:
            jobs.append(Path(folder))
            below.clear()  # a run folder holds no other run
    if not jobs:
        raise RunFolderError(f"{sweep}: no run folder (config.yaml) in it or below")
    return sorted(jobs, key=lambda path: [natural(part) for part in path.relative_to(sweep).parts])


def read_jobs(sweep: Path) -> list[Job]:
    """All jobs of a sweep, failed ones too.

    Raises:
        RunFolderError: no such folder, or no job in it.
    """
    return [read_job(folder, sweep) for folder in find_jobs(sweep)]


def read_job(folder: Path, sweep: Path) -> Job:
    """Read one job; whatever is wrong with it becomes the reason of a failed job."""
    name = folder.relative_to(sweep).as_posix() if folder != sweep else folder.name
    config, settings = folder / "config.yaml", {}
    complete = config.is_file()
    try:
        settings = _asked_for(
            flat_settings(read_config(config if complete else folder / ".hydra" / "config.yaml"))
        )
        run = read_run(folder)
        if run.finished:
            privacy = _privacy(run)
            epsilon, insecure = (
                (privacy.epsilon, bool(privacy.insecure_seed)) if privacy else (math.inf, False)
            )
            found = _labelled(run) if run.classifies else _segmented(run)
            more: dict[str, Any] = {
                "curve": curve_of(run.rounds),
                "seconds": float(run.summary.get("wall_seconds") or 0),
            }
            found |= {"status": "finished", "reason": "", "complete": complete}
            return Job(name, settings, epsilon=epsilon, insecure=insecure, **found, **more)
        reason = (
            run.status if run.summary else " ".join(t for t in run.missing if t.startswith("The run did not"))
        )
    except (RunFolderError, OSError) as error:
        reason = str(error)
    return Job(name, settings, pd.DataFrame(), "", "failed", " ".join(reason.split()), complete)


def _asked_for(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that a run has filled in itself (`worked_out`), which would name it by its sites."""
    if settings.get("scenario.clock.budget") is None:
        return settings
    return {name: v for name, v in settings.items() if not name.startswith(SITE_STEPS)} | {SITE_STEPS: {}}


def _privacy(run: RunFolder) -> Privacy | None:
    privacy = read_spent(run.path, run.config)
    if privacy is None and asks_for_privacy(run.config):
        raise RunFolderError(f"{run.path}: {NO_EPSILON}")
    return privacy


def _segmented(run: RunFolder) -> dict[str, Any]:
    """What is compared of a job by regions."""
    curve = curve_of(run.rounds)
    return {
        "table": institution_table(run),
        "convention": run.convention,
        "cases": _scores(run),
        "metrics": run.metrics,
        "scores": _every_score(run),
        "mb_to_95": cost_to(curve, "mb"),
        "hours_to_95": cost_to(curve, "hours"),
    }


def _labelled(run: RunFolder) -> dict[str, Any]:
    """What is compared of a job by the label of the case; a case without a score is in no score here, too."""
    cases = local_at_home(run.cases) if len(run.cases) else run.cases
    scores = cases.loc[cases["score"].notna(), [*KEYS, "score", "label"]].reset_index(drop=True)
    return {"table": label_table(run, cases), "convention": "", "metrics": FACTS, "scores": scores}


def label_table(run: RunFolder, cases: pd.DataFrame) -> pd.DataFrame:
    """What `institutions.csv` holds, or else what `cases` (local models at home) come to, as `institution_table`.

    Columns: those of `by_institution`, site "all" first of each arm; unseen; region, the label; percent_of_pooled, NaN,
    as half of an AUC is chance; note.
    """
    table = read_institutions(run.path)
    table = table if len(table) else by_institution(cases, AGGREGATES.read(run.path))
    few = table["n"].lt(MIN_CASES) & table["auc_low"].isna()
    notes = few.map({True: f"fewer than {MIN_CASES} test cases say little", False: ""})
    return table.assign(
        unseen=table["site"].isin(run.holdout), region=LABEL, percent_of_pooled=math.nan, note=notes
    )


def _scores(run: RunFolder) -> pd.DataFrame:
    columns = [*KEYS, task.MAIN]
    if not len(run.cases):
        return pd.DataFrame(columns=columns)
    cases = merge_local_arms(run.cases, run.metrics)
    return cases.loc[~cases["site"].isin(run.holdout), columns].reset_index(drop=True)


def _every_score(run: RunFolder) -> pd.DataFrame:
    columns = [*KEYS, *run.metrics]
    return (
        merge_local_arms(run.cases, run.metrics)[columns] if len(run.cases) else pd.DataFrame(columns=columns)
    )


def cost_to(curve: pd.DataFrame, axis: str, share: float = 0.95) -> float:
    """What the federated arm had cost when validation first reached `share` of its last value.

    Args:
        curve: of `runs.curves.curve_of`.
        axis: a column of it: "mb" for megabytes (10^6 bytes), "hours" of the simulated clock.
        share: of the last validation score, the mean of the regions.

    Returns:
        NaN without a validation, or where nothing is counted.
    """
    mine = curve[curve["arm"] == "federated"]
    worth = mine[list(task.COLUMNS.values())].mean(axis=1)
    if not len(mine) or not mine[axis].iloc[-1] > 0:
        return math.nan
    return float(mine.loc[worth >= share * worth.iloc[-1], axis].iloc[0])


def class_of(job: Job, group: str) -> str:
    """Name of the class that a group names, "-" for none."""
    return shown(job.settings.get(f"{group}._target_")).rsplit(".", 1)[-1]


def named(job: Job, group: str, jobs: list[Job]) -> str:
    """Class of a group, with those of its settings in which those of `jobs` with the same class differ."""
    name = class_of(job, group)
    alike = [other for other in jobs if class_of(other, group) == name]
    more = described(job, [key for key in differing(alike) if key.startswith(f"{group}.")])
    return f"{name} ({more})" if more else name


def values_of(job: Job, keys: list[str]) -> tuple[str, ...]:
    """What a job has for `keys`, as text."""
    return tuple(shown(job.settings.get(key)) for key in keys)


def is_seed(name: str) -> bool:
    """Whether a setting is a seed of any kind: of the training, the partition, the phantom or the noise."""
    return name == SEED or name.endswith((f".{SEED}", ".insecure_seed"))


def described(job: Job, keys: list[str]) -> str:
    """The settings `keys` of a job in one line: "init = none, strategy = FedProx"; "" without keys.

    An entry of a mapping that the job does not have, such as a site that is poisoned in another, is left out.
    """
    parts = []
    for key in keys:
        if key not in job.settings or job.settings[key] == {}:
            continue
        value = shown(job.settings.get(key))
        if key.endswith("._target_"):
            key, value = key.removesuffix("._target_"), value.rsplit(".", 1)[-1]
        value = "/".join(value.split("/")[-2:])  # the end of a path tells more than its start
        parts.append(f"{key.rsplit('.', 1)[-1]} = {'none' if value == MISSING else shorten(value)}")
    return ", ".join(parts)


def flat_settings(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name; lists stay whole."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        out |= flat_settings(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return out


def worked_out(config: Config) -> tuple[str, ...]:
    """Settings that a run has filled in by others, so that they say nothing of their own when two are compared."""
    steps = (SITE_STEPS,) if config.scenario.clock.budget is not None else ()
    return (*steps, *PLANNED) if asks_sites(config) else steps


def differing(jobs: list[Job]) -> list[str]:
    """Names of the settings in which the jobs differ; a setting that only some have differs.

    Of a group that jobs may do without (`OPTIONAL`), its class differs, and what differs between the jobs with a group.
    """
    names = list(dict.fromkeys(name for job in jobs for name in job.settings))
    known = [job for job in jobs if job.complete] or [job for job in jobs if job.settings]
    out = []
    for name in names:
        if name.startswith("run."):
            continue  # housekeeping
        values = {shown(job.settings.get(name)) for job in known}
        if name.split(".")[0] in OPTIONAL and not name.endswith("._target_"):
            values = {shown(job.settings[name]) for job in known if name in job.settings and "." in name}
        out += [name] if len(values) > 1 else []
    return out


def shown(value: object) -> str:
    """A setting as text; "-" for none."""
    return MISSING if value is None or value == "" else str(value)

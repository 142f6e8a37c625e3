"""Pooled and local models that another run has trained already and that come out the same in this one.

Both train plainly, so they know nothing of strategy, privacy and personalisation: jobs of a sweep that differ in these
alone have the same ones, to the bit. They are trained once; the other jobs take over what was found with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedbrats.config.schema import FEDERATED, LOCAL, POOLED, POOLED_ROW, Config, load_config
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import CLASSIFICATION
from fedbrats.config.versions import ANY
from fedbrats.data.prepare import Prepared
from fedbrats.environment import made_by
from fedbrats.files import read_json, write_json
from fedbrats.metrics.table import Facts
from fedbrats.models.planned import asks_sites
from fedbrats.runs import rounds
from fedbrats.runs.case_tables import TABLES, cases_table, write_table
from fedbrats.runs.environment import FILE
from fedbrats.studies.jobs import find_jobs, flat_settings, worked_out

BASELINES = (POOLED, LOCAL)
FREE = (
    "strategy",
    "privacy",
    "personalization",
    "arms",
    "run",
    "objective",
)  # what the baselines know nothing of
FREE_KEYS = ("runtime.workers", "report.html", "report.track", "report.floor")
POSTPROCESS = "postprocess.json"


def shared_arms(config: Config) -> list[str]:
    """The arms of a run that another one may have trained: none where nothing would be left to train."""
    if FEDERATED not in config.arms or config.report.predictions:
        return []
    return [arm for arm in config.arms if arm in BASELINES]


def without_taken(config: Config) -> list[str]:
    """The arms that a run trains itself."""
    taken = shared_arms(config) if config.run.baselines else []
    return [arm for arm in config.arms if arm not in taken]


def find_baselines(sweep: Path, config: Config) -> Path | None:
    """A finished job of `sweep` that has all arms which `config` may share; None where there is none, or none to share.

    `config`: settled.
    """
    if not shared_arms(config) or config.task.name == CLASSIFICATION:
        return None
    for folder in find_jobs(sweep) if any(sweep.glob("*/config.yaml")) else []:
        if not list(problems(folder, config)):
            return folder
    return None


def check_baselines(config: Config, prepared: Prepared) -> None:
    """Check that what `run.baselines` names may stand for arms of this run.

    Raises:
        ConfigError: it may not; the message says why.
    """
    if config.run.baselines is None:
        return
    key, folder = f"run.baselines={config.run.baselines}", Path(config.run.baselines)
    if not shared_arms(config):
        raise ConfigError(
            f"{key}: nothing to take over; arms must hold federated and pooled or local, and report.predictions=false."
        )
    if said := "; ".join(problems(folder, config)):
        raise ConfigError(f"{key}: {said}.")
    if (read_json(folder / "partition.json") or {}).get("sites") != prepared.to_json()["sites"]:
        raise ConfigError(f"{key}: the cases or their split are other ones than there.")


def problems(folder: Path, config: Config) -> Iterator[str]:
    """Why the baselines in `folder` cannot stand for those of `config`; nothing where they can."""
    try:
        other, made, summary = (
            load_config(folder / "config.yaml"),
            read_json(folder / FILE),
            folder / "summary.json",
        )
        if not str(read_json(summary).get("status")).startswith("finished"):
            yield "that run is not finished"
    except (OSError, ValueError, ConfigError) as error:
        yield f"no finished run ({error})"
        return
    if other.run.baselines is not None:
        yield "that run has taken over its own"
    if missing := [arm for arm in shared_arms(config) if arm not in other.arms]:
        yield f"it has no {', '.join(missing)}"
    if asks_sites(config) and config.survey.epsilon is not None:
        yield "its network was planned from counts with other noise (survey.epsilon)"
    if config.run.code != ANY and {key: made.get(key) for key in made_by()} != made_by():
        yield "it was made by other code (run.code=any takes it)"
    mine, theirs = _decisive(config), _decisive(other)
    if differs := [key for key in mine | theirs if mine.get(key) != theirs.get(key)]:
        yield f"it has another {', '.join(differs[:5])}"


def _decisive(config: Config) -> dict[str, Any]:
    """The settings that decide what comes out of the baselines."""
    settings, free = flat_settings(asdict(config)), (*FREE_KEYS, *worked_out(config))
    return {k: v for k, v in settings.items() if k.split(".")[0] not in FREE and not k.startswith(free)}


def take_over(folder: Path, config: Config, metrics: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Add what the run that `run.baselines` names has found with its baselines to the files in `folder`.

    May be called again, as at a resume.

    Returns:
        Their rows of `cases.csv`.
    """
    donor, taken = Path(str(config.run.baselines)), shared_arms(config)

    def is_taken(row: Mapping[str, Any]) -> bool:
        arm = POOLED if row["arm"] == POOLED_ROW else str(row["arm"])
        return arm.split(":")[0] in taken

    for table in (rounds.TABLE, *TABLES.values()):
        rows = [row for row in table.rows(folder) if not is_taken(row)]
        rows += [row for row in table.rows(donor) if is_taken(row)]
        if table is rounds.TABLE:
            rounds.TABLE.write(folder, rows)
        else:
            write_table(folder, table, rows)
    if (donor / POSTPROCESS).is_file():
        fitted = {arm: of for arm, of in read_json(donor / POSTPROCESS).items() if is_taken({"arm": arm})}
        write_json(folder / POSTPROCESS, read_json(folder / POSTPROCESS) | fitted)
    found = cases_table(metrics).read(donor).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in found if is_taken(row)]

"""Read a run folder into tables and plain dicts, whatever part of it a run got round to writing.

`config.yaml` makes a folder a run folder. Every other file may be missing (a run that was killed, an arm that was
not asked for): what is missing is listed in `RunFolder.missing`. A file that is there but cannot be read is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from fedbrats.config.names import check_names
from fedbrats.config.schema import ARMS, LOCAL
from fedbrats.config.targets import ConfigError
from fedbrats.files import read_yaml
from fedbrats.metrics.table import BY_NAME, METRICS, Facts, facts_of
from fedbrats.runs.case_tables import AGGREGATES, cases_table
from fedbrats.runs.classified import CASES, INSTITUTIONS
from fedbrats.runs.environment import SCHEMA_VERSION, own_metrics, schema_version
from fedbrats.runs.reading import RunFolderError, natural, read_json
from fedbrats.runs.rounds import read_rounds
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION, LABEL
from fedbrats.tasks.task import Task

SIMULATION_ENGINES = ("local", "ray")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class RunFolder:
    """What one run left.

    `rounds` and `cases` have the columns of `rounds.csv` and `cases.csv` (text as str, numbers as float64, `round` as
    int64; arms as written: "federated", "personal", "pooled", "local:<site>", "floor"). A dict is empty without its
    file. `metrics` are those that were scored, by name. `missing` has one sentence per thing that is not there or not
    complete.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    partition: dict[str, Any]
    rounds: pd.DataFrame
    cases: pd.DataFrame
    summary: dict[str, Any]
    metrics: dict[str, Facts]
    missing: tuple[str, ...]

    @property
    def classifies(self) -> bool:
        """Whether its task is a label of the case; `cases` then has a score and a label, and no metric."""
        return _classifies(self.config)

    @property
    def task(self) -> Task:
        """What sites told in every round, and what it is worth."""
        return CLASSIFICATION if self.classifies else task.SEGMENTATION

    @property
    def in_words(self) -> Mapping[str, str]:
        """The regions in words."""
        return task.words_of((self.config.get("data") or {}).get("labels"))

    @property
    def convention(self) -> str:
        """Name of the HD95 convention of every number in the folder."""
        return _convention(self.summary, self.config)

    @property
    def shown(self) -> dict[str, Facts]:
        """What is known of the task's own metrics, scored or not."""
        return {metric: BY_NAME[metric].facts(self.convention) for metric in task.SHOWN}

    @property
    def finished(self) -> bool:
        """Whether it came to its end, be it without a site that left."""
        return str(self.summary.get("status")).split(" ")[0] == "finished"

    @property
    def status(self) -> str:
        """ "finished", "finished without <sites>", "failed: <reason>" or, without a summary, "not finished"."""
        status = str(self.summary.get("status") or "not finished")
        reason = self.summary.get("reason")
        return f"{status}: {reason}" if reason and status == "failed" else status

    @property
    def simulation(self) -> bool:
        """Whether all sites ran on one machine, so that case names may be shown."""
        return (self.config.get("runtime") or {}).get("engine", "local") in SIMULATION_ENGINES

    @property
    def holdout(self) -> set[str]:
        """Institutions that never trained."""
        return {str(site["name"]) for site in self.partition.get("sites", []) if site.get("holdout")}

    @property
    def sites(self) -> list[str]:
        """Institutions in the order of the report: training sites by name, then the held-out ones."""
        names = {str(site["name"]) for site in self.partition.get("sites", [])}
        names |= set(self.cases["site"]) | {str(s) for s in self._summary_sites()}
        return sorted(names, key=lambda name: (name in self.holdout, natural(name)))

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that were scored or, without any score, validated, in the order of `REGIONS`; else all of them.

        A network may predict the whole tumour alone; of one that classifies it is the label.
        """
        if self.classifies:
            return (LABEL,)
        arms = self.summary.get("arms") or {}
        found = {*self.cases["region"], *(region for arm in arms.values() for region in arm.get("all", {}))}
        if not task.in_order(found):
            found = {region for region, name in task.COLUMNS.items() if self.rounds[name].notna().any()}
        return task.in_order(found) or task.REGIONS

    def _summary_sites(self) -> set[str]:
        arms = self.summary.get("arms") or {}
        return {site for arm in arms.values() for site in arm.get("sites", {})}


def read_run(folder: Path) -> RunFolder:
    """Read `folder`.

    Raises:
        RunFolderError: the folder or its `config.yaml` is missing, or a file in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: no such folder")
    if not (folder / "config.yaml").is_file():
        raise RunFolderError(f"{folder}: not a run folder, config.yaml is missing")
    missing, of_summary = list[str](), list[str]()
    config, environment = read_config(folder / "config.yaml"), _object(folder, "environment.json", missing)
    if (version := schema_version(environment)) > SCHEMA_VERSION:
        missing.append(
            f"A newer fedbrats wrote this folder (schema {version}, this one knows {SCHEMA_VERSION}): what it does not "
            "know is not shown."
        )
    partition, rounds = _object(folder, "partition.json", missing), read_rounds(folder, missing)
    summary = _object(folder, "summary.json", of_summary)
    cases, metrics = _read_scores(folder, config, environment, summary, missing)
    missing += of_summary
    cases = _complete_cases(cases, missing)
    run = RunFolder(folder, config, environment, partition, rounds, cases, summary, metrics, ())
    _check_names(run)
    return replace(run, missing=(*missing, *_missing_parts(run)))


def _check_names(run: RunFolder) -> None:
    """A folder may come from anybody: what it calls institutions, arms and cases must be names."""
    arms = {*run.rounds["arm"], *run.cases["arm"], *(run.summary.get("arms") or {})}
    kinds = {
        "institution": {*run.sites, *run.rounds["site"]},
        "arm": {arm.removeprefix(f"{LOCAL}:") for arm in arms},
        "case": set(run.cases["case"]),
    }
    for what, names in kinds.items():
        try:
            check_names(what, sorted(names - {""}), "no run of fedbrats writes such a name")
        except ConfigError as error:
            raise RunFolderError(f"{run.path}: {error}") from error


def _read_scores(
    folder: Path,
    config: dict[str, Any],
    environment: dict[str, Any],
    summary: dict[str, Any],
    missing: list[str],
) -> tuple[pd.DataFrame, dict[str, Facts]]:
    """`cases.csv`, and the metrics of which it or the summary has a score; of one that nobody here knows the name."""
    if _classifies(config):
        return CASES.read(folder, missing).assign(region=LABEL), {}
    own, summed = own_metrics(environment), _summed(summary)
    cases = cases_table(dict.fromkeys((*BY_NAME, *own, *summed))).read(folder, missing)
    try:
        known = facts_of(METRICS, _convention(summary, config)) | own
    except ValueError as error:
        if len(cases):
            raise RunFolderError(f"{folder / 'cases.csv'}: {error}") from error
        known = own
    told = {m: facts for m, facts in known.items() if cases[m].notna().any() or m in summed}
    return cases, told | {metric: Facts(metric) for metric in summed if metric not in known}


def _classifies(config: dict[str, Any]) -> bool:
    return (config.get("task") or {}).get("name") == CLASSIFICATION.name


def _object(folder: Path, name: str, missing: list[str]) -> dict[str, Any]:
    """A JSON object; of a file that is not there nothing, and a sentence in `missing`."""
    content = read_json(folder / name)
    if content is None:
        missing.append(f"{name} is missing.")
    return content or {}


def _convention(summary: dict[str, Any], config: dict[str, Any]) -> str:
    """Name of the convention of the scores."""
    return str(summary.get("convention") or (config.get("metrics") or {}).get("convention") or UNKNOWN)


def _summed(summary: dict[str, Any]) -> list[str]:
    """The metrics in the summary, perhaps some that nobody here knows."""
    arms = (summary.get("arms") or {}).values()
    return list(dict.fromkeys(m for arm in arms for scores in arm.get("all", {}).values() for m in scores))


def read_config(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain dicts and lists, interpolations left as written; nothing of it is built."""
    try:
        content = OmegaConf.to_container(read_yaml(path), resolve=False)
    except Exception as error:
        raise RunFolderError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _complete_cases(cases: pd.DataFrame, missing: list[str]) -> pd.DataFrame:
    """Leave out cases of which only some regions were written before the run was killed."""
    scored = cases[(cases["status"] == "ok") | (cases["region"] != "")]
    keys = ["arm", "site", "case"]
    regions = scored.groupby("arm")["region"].transform("nunique")  # the floor has fewer than a network
    incomplete = scored.index[scored.groupby(keys)["region"].transform("nunique") < regions]
    if len(incomplete):
        count = len(cases.loc[incomplete].drop_duplicates(keys))
        missing.append(f"{count} scored case(s) in cases.csv lack a region and are left out.")
    return cases.drop(index=incomplete).reset_index(drop=True)


def _missing_parts(run: RunFolder) -> list[str]:
    """What the run did not do or did not finish, as sentences."""
    out = []
    if not run.finished:
        reason = f" ({run.status})" if run.status != "not finished" else ""
        last = f"last recorded round {run.rounds['round'].max()}" if len(run.rounds) else "no round recorded"
        out.append(f"The run did not finish{reason}: {last} of {run.config.get('rounds', '?')}.")
    arms = {
        arm.split(":")[0] for arm in {*run.rounds["arm"], *run.cases["arm"], *(run.summary.get("arms") or {})}
    }
    asked = list(run.config.get("arms") or ARMS)
    absent = [arm for arm in asked if arm not in arms]
    if absent and arms:
        out.append(f"Arms without results: {', '.join(absent)}.")
    if taken := run.summary.get("baselines"):
        out.append(
            f"Not trained here: {' and '.join(taken['arms'])}; the run {taken['run']} has trained them with the same "
            "data, settings and seeds, and they know nothing of what this run does besides."
        )
    left_out = [arm for arm in ARMS if arm not in asked]
    if left_out:
        out.append(f"Arms that were not asked for: {', '.join(left_out)}.")
    if len(run.rounds) and not (run.rounds["phase"] == "val").any():
        out.append("There are no validation results: no site has validation cases, or validation was off.")
    if (run.path / AGGREGATES.name).is_file():
        instead = f"{INSTITUTIONS.name} has what they tell instead"
        means = instead if run.classifies else f"{AGGREGATES.name} has the means of all sites"
        out.append(f"Some sites keep the results of single cases; {means}.")
    elif not len(run.cases):
        out.append("There are no test results.")
    return out

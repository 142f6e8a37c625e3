"""Read a run folder into tables and plain dicts, whatever part of it a run got round to writing.

`config.yaml` makes a folder a run folder. Every other file may be missing (a run that was killed, an arm that was
not asked for): what is missing is listed in `RunFolder.missing`. A file that is there but cannot be read is an error.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from fedbrats.config.schema import ARMS
from fedbrats.data.regions import REGIONS
from fedbrats.metrics.score import SCORES, VOLUMES

ROUND_TEXT = ("arm", "site", "phase", "status")
ROUND_NUMBERS = (
    "round",
    "cases",
    "loss",
    "dice_wt",
    "dice_tc",
    "dice_et",
    "seconds",
    "bytes_down",
    "bytes_up",
)
CASE_TEXT = ("arm", "site", "case", "region", "status")
CASE_NUMBERS = (*SCORES, *VOLUMES)
DICE_COLUMNS = tuple(f"dice_{region.lower()}" for region in REGIONS)  # of rounds.csv
AT_THE_END = ("fit", "test")  # phases after the last round
SIMULATION_ENGINES = ("local", "ray")


class RunFolderError(ValueError):
    """A folder that is no run folder, or a file in it that cannot be read; the message names the file."""


@dataclass(frozen=True)
class RunFolder:
    """What one run left.

    `rounds` and `cases` have the columns of `rounds.csv` and `cases.csv` (text as str, numbers as float64, `round` as
    int64; arms as written: "federated", "personal", "pooled", "local:<site>"). A dict is empty without its file.
    `missing` has one sentence per thing that is not there or not complete.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    partition: dict[str, Any]
    rounds: pd.DataFrame
    cases: pd.DataFrame
    summary: dict[str, Any]
    missing: tuple[str, ...]

    @property
    def convention(self) -> str:
        """Name of the HD95 convention of every number in the folder."""
        configured = (self.config.get("metrics") or {}).get("convention")
        return str(self.summary.get("convention") or configured or "unknown")

    @property
    def finished(self) -> bool:
        return self.summary.get("status") == "finished"

    @property
    def status(self) -> str:
        """ "finished", "failed: <reason>" or, without a summary, "not finished"."""
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

        A network may predict the whole tumour alone.
        """
        arms = self.summary.get("arms") or {}
        found = {*self.cases["region"], *(region for arm in arms.values() for region in arm.get("all", {}))}
        if not found & set(REGIONS):
            found = {r for r, name in zip(REGIONS, DICE_COLUMNS) if self.rounds[name].notna().any()}
        return tuple(region for region in REGIONS if region in found) or REGIONS

    def _summary_sites(self) -> set[str]:
        arms = self.summary.get("arms") or {}
        return {site for arm in arms.values() for site in arm.get("sites", {})}


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which site "2" comes before site "10"."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


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
    missing: list[str] = []
    run = RunFolder(
        path=folder,
        config=read_config(folder / "config.yaml"),
        environment=read_json(folder / "environment.json", missing),
        partition=read_json(folder / "partition.json", missing),
        rounds=_read_table(folder / "rounds.csv", ROUND_TEXT, ROUND_NUMBERS, missing),
        cases=_read_table(folder / "cases.csv", CASE_TEXT, CASE_NUMBERS, missing),
        summary=read_json(folder / "summary.json", missing),
        missing=(),
    )
    run.rounds["round"] = run.rounds["round"].astype("int64")
    run = replace(run, cases=_complete_cases(run.cases, missing))
    missing += _missing_parts(run)
    return replace(run, missing=tuple(missing))


def read_config(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain dicts and lists, interpolations left as written."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise RunFolderError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def read_json(path: Path, missing: list[str]) -> dict[str, Any]:
    """A JSON object; of a file that is not there nothing, and a sentence in `missing`."""
    if not path.is_file():
        missing.append(f"{path.name} is missing.")
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunFolderError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def optional_table(path: Path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file with at least the named columns, without rows where there is no such file.

    Raises:
        RunFolderError: it cannot be read.
    """
    return _read_table(path, text, numbers, [])


def _read_table(
    path: Path, text: tuple[str, ...], numbers: tuple[str, ...], missing: list[str]
) -> pd.DataFrame:
    """A CSV file with at least the named columns; a last line without line end (killed while writing) is left out."""
    empty = pd.DataFrame(
        {**{c: pd.Series(dtype="str") for c in text}, **{c: pd.Series(dtype=float) for c in numbers}}
    )
    if not path.is_file():
        missing.append(f"{path.name} is missing.")
        return empty
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path}: not readable as CSV ({error})") from error
    if content and not content.endswith("\n"):
        content = content[: content.rfind("\n") + 1]
        missing.append(f"The last line of {path.name} was not written completely and is left out.")
    if not content.strip():
        missing.append(f"{path.name} is empty.")
        return empty
    try:
        # Text stays text: sites are called "2013", "1" or "NA".
        frame = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise RunFolderError(f"{path}: not readable as CSV ({error})") from error
    absent = [column for column in (*text, *numbers) if column not in frame]
    if absent:
        raise RunFolderError(f"{path}: columns missing: {', '.join(absent)}")
    for column in numbers:
        frame[column] = _as_numbers(frame[column], path)
    return frame


def _as_numbers(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column.replace("", np.nan), errors="coerce").astype(float)
    wrong = numbers.isna() & ~column.str.strip().str.lower().isin(["", "nan", "none"])
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2
        raise RunFolderError(
            f"{path}: line {line}, column {column.name}: {column[wrong].iloc[0]!r} is no number"
        )
    if column.name == "round" and numbers.isna().any():
        raise RunFolderError(f"{path}: line {int(np.flatnonzero(numbers.isna())[0]) + 2} has no round")
    return numbers


def _complete_cases(cases: pd.DataFrame, missing: list[str]) -> pd.DataFrame:
    """Leave out cases of which only some regions were written before the run was killed."""
    whole = (cases["status"] != "ok") & (cases["region"] == "")
    regions = cases.loc[~whole, "region"].nunique()
    keys = ["arm", "site", "case"]
    part = cases[~whole].groupby(keys)["region"].transform("nunique") < regions
    incomplete = part[part].index
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
    left_out = [arm for arm in ARMS if arm not in asked]
    if left_out:
        out.append(f"Arms that were not asked for: {', '.join(left_out)}.")
    if len(run.rounds) and not (run.rounds["phase"] == "val").any():
        out.append("There are no validation results: no site has validation cases, or validation was off.")
    if not len(run.cases):
        out.append("There are no test results.")
    return out

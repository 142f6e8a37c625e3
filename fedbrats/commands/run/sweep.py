"""A sweep: which of its jobs are begun, gone on with or left as they are, and what became of all of them.

Jobs may run in other processes, or on other machines with the same file system, so each leaves what became of it in
the folder of the sweep:

    .outcomes/<job>.json     status and reason
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fedbrats.checks.config import checked
from fedbrats.checks.settings import resumed_config, settle
from fedbrats.config.names import shown
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.config.versions import ANY
from fedbrats.data.sentences import plural
from fedbrats.environment import made_by
from fedbrats.files import private_folder, read_json, write_json
from fedbrats.runs.environment import FILE
from fedbrats.studies.jobs import flat_settings, worked_out

BEGIN, GO_ON, FINISHED = "begin", "go on", "finished before"
DONE, FAILED = "finished", "failed"
OUTCOMES = ".outcomes"
NOT_COMPARED = ("run.", "runtime.workers", "report.track")  # what may differ when a job is gone on with


class AnotherJob(ConfigError):
    """The folder of a job holds another one, which is left as it is."""


def same_keys(arguments: Sequence[str]) -> list[str]:
    """Keys of the overrides that have one value in all jobs of a sweep."""
    found = []
    for argument in arguments:
        with suppress(HydraException):
            override = OverridesParser.create().parse_override(argument)
            if not override.is_sweep_override():
                found.append(argument.partition("=")[0].lstrip("+~"))
    return found


def standing(folder: Path, config: DictConfig, base: Path) -> str:
    """Whether the job in `folder` is to `BEGIN`, to `GO_ON`, or `FINISHED` with the same configuration and code.

    What is left of a job that failed before it had settled its configuration is removed.

    Raises:
        AnotherJob: of another configuration, named key by key, or made by other code.
        ConfigError: what is asked for cannot run.
    """
    if not (folder / "config.yaml").is_file():
        return BEGIN
    if not (folder / FILE).is_file():
        for name in ("config.yaml", "summary.json"):
            (folder / name).unlink(missing_ok=True)
        return BEGIN
    asked = checked(config, base)
    stored = resumed_config(replace(asked, run=replace(asked.run, resume=str(folder))), [])
    if other := "; ".join(_differences(stored, settle(asked))):
        raise AnotherJob(
            f"{folder} holds a job of another configuration: {other}. Choose another hydra.sweep.dir, or delete the "
            "folder."
        )
    made, now = read_json(folder / FILE), made_by()
    if asked.run.code != ANY and {key: made.get(key) for key in now} != now:
        raise AnotherJob(
            f"{folder} was made by other code (commit {str(made.get('commit') or 'unknown')[:9]}): delete the folder "
            "to make it anew, or take it as it is with run.code=any."
        )
    summary = folder / "summary.json"
    ended = summary.is_file() and str(read_json(summary).get("status")).startswith("finished")
    return FINISHED if ended else GO_ON


def _differences(stored: Config, asked: Config) -> Iterator[str]:
    """The settings in which a job differs from what is asked for now, at most five."""
    before, now = flat_settings(asdict(stored)), flat_settings(asdict(asked))
    free = (*NOT_COMPARED, *worked_out(asked))
    keys = [key for key in before | now if before.get(key) != now.get(key) and not key.startswith(free)]
    for key in keys[:5]:
        yield f"{key}={before.get(key)}, now {now.get(key)}"


def sweep_folder() -> Path:
    """The folder of the sweep that the job of this process belongs to."""
    config = HydraConfig.get()
    return Path(config.runtime.cwd) / config.sweep.dir


def note(sweep: Path, folder: Path, status: str, reason: str = "") -> None:
    """Leave what became of the job in `folder`, for whoever lists the jobs of `sweep`."""
    with suppress(OSError):  # a full disk may be the very reason
        write_json(
            private_folder(sweep / OUTCOMES) / f"{folder.name}.json", {"status": status, "reason": reason}
        )


class Listing(Callback):
    """Hydra's hooks at both ends of a sweep: say in the end what became of its jobs, whatever process they ran in."""

    failed: ClassVar[list[str]] = []  # names of the jobs of the last sweep of this process

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget an earlier sweep in the same folder."""
        type(self).failed = []
        shutil.rmtree(Path(config.hydra.sweep.dir) / OUTCOMES, ignore_errors=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the jobs and name those that failed, with their reasons."""
        sweep = Path(config.hydra.sweep.dir)
        found = {file.stem: read_json(file) for file in sorted((sweep / OUTCOMES).glob("*.json"))}
        counts = {
            status: [n for n, o in found.items() if o["status"] == status]
            for status in (DONE, FINISHED, FAILED)
        }
        type(self).failed = counts[FAILED]
        if not found:
            return
        said = ", ".join(f"{len(names)} {status}" for status, names in counts.items() if names)
        print(
            f"fedbrats: {plural(len(found), 'job')} in {shown(str(sweep))}: {said}",
            file=sys.stderr,
            flush=True,
        )
        for name in counts[FAILED]:
            print(
                f"fedbrats: failed: {name}: {shown(str(found[name]['reason']))}", file=sys.stderr, flush=True
            )

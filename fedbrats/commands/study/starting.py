"""How a study begins at the server: its configuration settled, its folder made, its run set off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedbrats.checks.by_engine import with_one_exchange, with_quorum
from fedbrats.checks.site_count import check_count
from fedbrats.checks.study import check_study
from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.server import metrics_of
from fedbrats.commands.study.folder import RUNNING, Study, read_study, study_folder, write_state, write_study
from fedbrats.config.schema import (
    FEDERATED,
    Config,
    DataConfig,
    PartitionConfig,
    RunConfig,
    RuntimeConfig,
    save_config,
)
from fedbrats.config.server_file import ServerFile
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.folder import Folder
from fedbrats.engines.superlink.control import control, run_status, start_run
from fedbrats.engines.superlink.programs import server_address
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.personal import write_personalization
from fedbrats.files import private_folder, read_text
from fedbrats.runs.checkpoint import last_round
from fedbrats.runs.environment import write_environment

ENDED = "finished"  # Flower's word for a run that is over, however it ended


def begin(server: ServerFile, name: str, overrides: Sequence[str]) -> Path:
    """Make the folder of a study that is not there yet; returns it.

    Raises:
        ConfigError: it is there, its configuration cannot run across hospitals, or a site is not enrolled.
    """
    folder = study_folder(server, name)
    if folder.exists():
        raise ConfigError(f"{folder}: is there already; resume it, or give the study another name")
    config = study_config(overrides)
    enrolled = {site for site, _ in Folder(Path(server.federation)).read().keys_at(datetime.now(UTC))}
    sites = tuple(sorted(server.sites or enrolled))
    if strangers := sorted(set(sites) - enrolled):
        raise ConfigError(f"sites={list(strangers)}: not enrolled, or without a key that holds")
    if not sites:
        raise ConfigError("no site is enrolled; `fedbrats federation enrol` lets one in")
    check_count(parts_of(config), len(sites))
    private_folder(private_folder(folder.parent) / name)
    save_config(config, folder / "config.yaml")
    write_environment(folder, overrides, metrics_of(config))
    write_personalization(folder, config, parts_of(config))
    digest = sha256(read_text(folder / "config.yaml").encode()).hexdigest()
    write_study(folder, Study(name, digest, sites))
    return folder


def study_config(overrides: Sequence[str]) -> Config:
    """What a study asks of its sites: checked, and without anything that is decided at a site or at this machine.

    Raises:
        ConfigError: naming the key and the fix.
    """
    arms = [] if any(o.lstrip("+").startswith("arms=") for o in overrides) else [f"arms=[{FEDERATED}]"]
    found = compose_config(["runtime=superlink", *arms, *overrides])
    check_study(found)
    own, runtime = found.partition, found.runtime
    settled = replace(
        found,
        data=DataConfig(),
        partition=PartitionConfig(val=own.val, test=own.test, seed=own.seed, fold=own.fold, folds=own.folds),
        runtime=RuntimeConfig(
            engine=runtime.engine,
            amp=runtime.amp,
            evaluate_every=runtime.evaluate_every,
            one_exchange=runtime.one_exchange,
            checkpoint_every=runtime.checkpoint_every,
            keep_checkpoints=runtime.keep_checkpoints,
        ),
        run=RunConfig(versions=found.run.versions),
    )
    return with_one_exchange(with_quorum(settled))


def set_off(server: ServerFile, folder: Path) -> int:
    """Have the server work on the study, from its last finished round; returns Flower's number of the run.

    Raises:
        ConfigError: no such study, or its last run is not over.
        ServerAway: the SuperLink does not answer.
    """
    study = read_study(folder)
    with asking(server) as client:
        if study.runs and not over(run_status(client, study.runs[-1])):
            raise ConfigError(f"study {study.name}: its run {study.runs[-1]} is not over; stop it first")
        run = start_run(client, study.name)
        write_study(folder, study.with_run(run, last_round(folder / "checkpoints")))
        write_state(folder, RUNNING, "waiting for the server's SuperExec")
    return run


def over(status: str) -> bool:
    """Whether a run with this `run_status` does nothing any more; a SuperLink that began anew does not know it."""
    return not status or status.startswith(ENDED)


@contextmanager
def asking(server: ServerFile) -> Iterator[Any]:
    """The SuperLink's interface for its operator. Raises ServerAway: no answer."""
    with control(server_address(server), Folder(Path(server.federation)).authority) as client:
        yield client

"""The server's half of a study, in the process that the server's SuperExec starts for it.

Its work is that of a simulation (`commands/run/server.py`): the sites join, train round by round, are tested. What is
its own: sites are known by their registered keys and prepare themselves first, and cases have pseudonyms.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import RunNotRunningException

from fedbrats.commands.run.progress import Progress
from fedbrats.commands.run.server import (
    federation,
    joined,
    trained_and_tested,
    write_failure,
    write_reports,
    write_results,
)
from fedbrats.commands.study.folder import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    Study,
    only_one,
    read_state,
    read_study,
    study_folder,
    write_state,
)
from fedbrats.config.schema import Config, load_config, save_config
from fedbrats.config.server_file import VARIABLE, ServerFile, load_server_file
from fedbrats.credentials.folder import Folder
from fedbrats.credentials.keys import public_pem
from fedbrats.data.partition import Site
from fedbrats.engines.superlink.grid import StudyGrid
from fedbrats.engines.superlink.thin_app import STUDY
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.personal import write_personalization
from fedbrats.federation.server.planning import planned_by_sites, tell_plan
from fedbrats.federation.server.preparing import prepare_sites
from fedbrats.federation.server.state import FederationError, Member
from fedbrats.files import read_json, read_text, remove_partial, write_json, write_text
from fedbrats.models.planned import asks_sites, awaits_plan, read_plan
from fedbrats.runs.case_tables import PLAN
from fedbrats.runs.site_cases import pseudonym

DAY = 86400.0  # seconds
ASKED = "study.yaml"  # the configuration as the sites took it, once another stands in config.yaml
# What Flower's client raises where the SuperLink has ended the run or began anew, an interrupt where it does not know
# the token. Neither is a fault of the study: it was stopped, or goes on with another run (`going_on.py`).
LOST = (KeyboardInterrupt, RunNotRunningException, httpx.HTTPError)
log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study that the run's configuration names to its end.

    Raises:
        ConfigError: no such study, or another process works on it.
        FederationError: it cannot start or go on; the folder then holds a report of what there is.
    """
    server = load_server_file(Path(os.environ[VARIABLE]))
    folder = study_folder(server, context.run_config.get(STUDY))
    study = read_study(folder)
    with only_one(folder), _log(folder / "server.log") as stream, Progress(stream) as progress:
        try:
            _run(server, folder, study, StudyGrid(grid), progress)
        except LOST:
            log.exception("the SuperLink has no such run any more")
            raise
        except BaseException as error:
            write_state(folder, FAILED, str(error) or type(error).__name__)
            log.exception("the study ends here")
            raise
    write_state(folder, FINISHED, "the results are written")


@contextmanager
def _log(file: Path) -> Iterator[TextIO]:
    """What is logged in this process goes to `file`, too, for as long as the context lasts."""
    with file.open("a", encoding="utf-8") as stream:
        handler = logging.StreamHandler(stream)
        logging.getLogger().addHandler(handler)
        try:
            yield stream
        finally:
            logging.getLogger().removeHandler(handler)


def _run(server: ServerFile, folder: Path, study: Study, grid: StudyGrid, progress: Progress) -> None:
    config, started = load_config(folder / "config.yaml"), time.perf_counter()
    remove_partial(folder)

    def say(text: str) -> None:
        if read_state(folder)["state"] != STOPPED:
            write_state(folder, RUNNING, text)
        progress.message(text)

    try:
        _gather(server, folder, study, grid, config, say)
        config = _planned(folder, study, grid, config, progress, say)
        parts = parts_of(config)
        members = joined(grid, folder, config, study.sites, grid.nodes)
        sites = _sites(folder, members)
        if parts.algorithm.needed(len(sites)) == len(sites):
            grid.wait_for_sites(server.wait_days * DAY, say)
        fed = federation(folder, config, parts, sites, progress)
        fed.members = members
        say("the rounds are under way")
        progress.start(config.rounds, [cohort.arm for cohort in fed.cohorts], None)
        rows = trained_and_tested(grid, fed, config, parts, sites)
    except FederationError as error:
        write_failure(folder, config, error)
        raise
    write_results(folder, config, rows, time.perf_counter() - started)
    if config.report.html:
        say("writing the reports")
        write_reports(folder)


def _gather(
    server: ServerFile, folder: Path, study: Study, grid: StudyGrid, config: Config, say: Any
) -> None:
    """Wait until all sites are there, have prepared themselves and have approved."""
    record = Folder(Path(server.federation))

    def online() -> Mapping[int, str]:
        keys = {public_pem(public): site for site, public in record.read().keys_at(datetime.now(UTC))}
        grid.nodes = grid.online(keys)
        return grid.nodes

    # What the sites have taken: of a network that has been planned meanwhile, the configuration before.
    asked = folder / ASKED
    text = read_text(asked if asked.is_file() else folder / "config.yaml")
    how = (parts_of(config).algorithm.timeout, server.wait_days * DAY, say)
    grid.nodes = prepare_sites(grid, online, list(study.sites), (text, study.sha256), *how)


def _planned(
    folder: Path,
    study: Study,
    grid: StudyGrid,
    config: Config,
    progress: Progress,
    say: Callable[[str], None],
) -> Config:
    """`config` with the plan of its network, if it asks the sites for one; every site has made the same.

    Raises:
        ConfigError, FederationError: as `planned_by_sites` and `tell_plan`.
    """
    if not asks_sites(config):
        return config
    timeout = parts_of(config).algorithm.timeout
    if awaits_plan(config):
        members = joined(grid, folder, config, study.sites, grid.nodes)
        config = planned_by_sites(grid, folder, config, members, progress, say)
        if not (folder / ASKED).is_file():
            write_text(folder / ASKED, read_text(folder / "config.yaml"))
        save_config(config, folder / "config.yaml")
        write_personalization(folder, config, parts_of(config))
    tell_plan(grid, folder, read_plan(folder / PLAN, f"study {folder.name}"), grid.nodes, timeout)
    return config


def _sites(folder: Path, members: Mapping[str, Member]) -> list[Site]:
    """The sites as the results name them: cases under pseudonyms, in the order of the site's own list.

    Raises:
        FederationError: a resumed study finds other numbers of cases than it began with.
    """
    sites = []
    for name, member in sorted(members.items()):
        names = [pseudonym(name, i) for i in range(member.test + member.train + member.val)]
        test, rest = tuple(names[: member.test]), names[member.test :]
        train, val = tuple(rest[: member.train]), tuple(rest[member.train :])
        sites.append(Site(name, not member.train, train, val, test))
    content = [
        {"name": s.name, "holdout": s.holdout, "train": [*s.train], "val": [*s.val], "test": [*s.test]}
        for s in sites
    ]
    file = folder / "partition.json"
    if file.is_file() and read_json(file)["sites"] != content:
        raise FederationError("sites have other numbers of cases than when the study began")
    write_json(file, {"sites": content})
    return sites

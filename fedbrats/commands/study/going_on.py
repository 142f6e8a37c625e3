"""A study goes on by itself when the process that works on it, the SuperLink or the whole host has died."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fedbrats.commands.study.folder import (
    FAILED,
    RUNNING,
    STUDIES,
    held,
    read_state,
    read_study,
    write_state,
)
from fedbrats.commands.study.starting import asking, over, set_off
from fedbrats.config.server_file import ServerFile
from fedbrats.engines.superlink.control import ServerAway, run_status
from fedbrats.runs.checkpoint import last_round

TRIES = 3  # runs in a row that may end without another finished round

log = logging.getLogger(__name__)


def going_on(server: ServerFile) -> Callable[[], None]:
    """What a server does meanwhile: a study that is to run, but whose run is over, gets another.

    One that was stopped, is finished or has said itself why it failed is left alone.
    """
    said: dict[Path, str] = {}

    def look() -> None:
        for folder in sorted(Path(server.storage, STUDIES).glob("*")):
            try:
                if read_state(folder)["state"] == RUNNING:
                    go_on(server, folder)
            except (ServerAway, OSError, ValueError) as error:
                if said.get(folder) != str(error):
                    log.warning("study %s: %s", folder.name, error)
                said[folder] = str(error)

    return look


def go_on(server: ServerFile, folder: Path) -> None:
    """Set the study off again if its last run is over and no process works on it; after `TRIES` in vain it has failed.

    Raises:
        ServerAway: the SuperLink does not answer.
    """
    study = read_study(folder)
    with asking(server) as client:
        said = run_status(client, study.runs[-1]) if study.runs else ""
    # in this order: to see whether it is held takes the lock, which a process that begins must get
    if not over(said) or held(folder):
        return
    why = said or "the SuperLink began anew"
    done, tries = last_round(folder / "checkpoints"), study.began[-TRIES:]
    if tries == (done,) * TRIES:
        said = f"{TRIES} runs in a row ended before round {done + 1} was ({why}); the logs of the server say more"
        write_state(folder, FAILED, said)
        log.warning("study %s: %s", study.name, said)
        return
    run = set_off(server, folder)
    log.warning("study %s: its run %d ended (%s); run %d goes on", study.name, study.runs[-1], why, run)

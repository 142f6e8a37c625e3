"""The folder of a study at the server: a run folder, with who is asked and what became of it so far.

study.json   who is asked, and the runs of Flower that worked on it
state.json   what the server does now or why it ended, in a sentence
server.log   what it said
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedbrats.config.names import fault
from fedbrats.config.server_file import ServerFile
from fedbrats.config.targets import ConfigError
from fedbrats.files import locked, read_json, write_json

STUDIES = "studies"
LOCK = ".lock"
RUNNING, FINISHED, FAILED, STOPPED = "running", "finished", "failed", "stopped"


@dataclass(frozen=True)
class Study:
    """Who is asked, and Flower's numbers of the runs that worked on it, the last one last.

    `began` holds for each run the last finished round when it began.
    """

    name: str
    sha256: str  # of config.yaml
    sites: tuple[str, ...]
    runs: tuple[int, ...] = ()
    began: tuple[int, ...] = ()

    def with_run(self, run: int, began: int) -> Study:
        """The same with one more run, which begins after round `began`."""
        return replace(self, runs=(*self.runs, run), began=(*self.began, began))


def study_folder(server: ServerFile, name: Any) -> Path:
    """Where a study lies. Raises ConfigError: the name cannot be one."""
    if not isinstance(name, str) or (reason := fault(name)):
        raise ConfigError(f"study {str(name)[:60]!r} {reason if isinstance(name, str) else 'is no name'}")
    return Path(server.storage) / STUDIES / name


def read_study(folder: Path) -> Study:
    """The study in `folder`. Raises ConfigError: there is none."""
    file = folder / "study.json"
    if not file.is_file():
        raise ConfigError(f"{folder.name}: no such study; `fedbrats study start` begins one")
    content = read_json(file)
    lists = (tuple(content.get(key, ())) for key in ("sites", "runs", "began"))
    return Study(content["name"], content["sha256"], *lists)


def write_study(folder: Path, study: Study) -> None:
    """Write who is asked."""
    write_json(folder / "study.json", asdict(study))


def write_state(folder: Path, state: str, said: str) -> None:
    """Write what the server does now; `state` is one of the words above."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "state.json", {"state": state, "said": said, "at": at})


def read_state(folder: Path) -> dict[str, str]:
    """What `write_state` wrote last; empty words before."""
    file = folder / "state.json"
    return read_json(file) if file.is_file() else {"state": "", "said": "", "at": ""}


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold `folder` for as long as the context lasts. Raises ConfigError: another process holds it."""
    with locked(folder / LOCK) as ours:
        if not ours:
            raise ConfigError(f"{folder}: another process works on it")
        yield


def held(folder: Path) -> bool:
    """Whether a process works on the study."""
    with locked(folder / LOCK, alone=False) as nobody_has_it:
        return not nobody_has_it

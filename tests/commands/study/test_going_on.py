"""When a server goes on with a study by itself, and when it leaves it alone; with processes: `test_resumed.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedbrats.commands.study import going_on, starting
from fedbrats.commands.study.folder import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    Study,
    only_one,
    read_state,
    read_study,
    write_state,
    write_study,
)
from fedbrats.config.server_file import ServerFile
from fedbrats.engines.superlink.control import ServerAway
from fedbrats.runs.checkpoint import Model, save_checkpoint

OVER = "finished: failed: no heartbeat"


@dataclass
class SuperLink:
    """What the server's SuperLink says of every run, and which runs it was asked for."""

    status: str = OVER
    away: bool = False
    begun: list[str] = field(default_factory=list)


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    made = SuperLink()

    @contextmanager
    def asking(server: ServerFile) -> Iterator[SuperLink]:
        if made.away:
            raise ServerAway("no answer")
        yield made

    def start_run(client: SuperLink, study: str) -> int:
        client.begun.append(study)
        return 100 + len(client.begun)

    for module in (going_on, starting):
        monkeypatch.setattr(module, "asking", asking)
        monkeypatch.setattr(module, "run_status", lambda client, run: client.status)
    monkeypatch.setattr(starting, "start_run", start_run)
    return made


@pytest.fixture
def server(tmp_path: Path) -> ServerFile:
    return ServerFile(federation=str(tmp_path / "federation"), storage=str(tmp_path))


def study(server: ServerFile, name: str, state: str) -> Path:
    folder = Path(server.storage) / "studies" / name
    folder.mkdir(parents=True)
    write_study(folder, Study(name, "0" * 64, ("a", "b"), (1,), (0,)))
    write_state(folder, state, "as it was")
    return folder


@pytest.mark.parametrize(
    "status", [OVER, ""]
)  # Flower noticed that its process died; a SuperLink that began anew
def test_a_study_whose_run_is_over_gets_another(
    server: ServerFile, superlink: SuperLink, status: str
) -> None:
    folder, superlink.status = study(server, "glioma", RUNNING), status
    going_on.going_on(server)()
    assert superlink.begun == ["glioma"]
    assert read_study(folder).runs == (1, 101)
    assert read_state(folder)["state"] == RUNNING


@pytest.mark.parametrize("state", [STOPPED, FAILED, FINISHED, ""])
def test_what_was_ended_stays_so(server: ServerFile, superlink: SuperLink, state: str) -> None:
    study(server, "glioma", state)
    going_on.going_on(server)()
    assert superlink.begun == []


def test_a_study_that_is_worked_on_is_left_alone(
    server: ServerFile, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, look = study(server, "glioma", RUNNING), going_on.going_on(server)
    with only_one(folder):
        look()
    assert superlink.begun == []
    superlink.status = "running"
    with monkeypatch.context() as patch:
        patch.setattr(
            going_on, "held", lambda folder: pytest.fail("its process may be about to take the lock")
        )
        look()
    assert superlink.begun == []
    superlink.status = OVER
    look()
    assert superlink.begun == ["glioma"]


def test_after_three_runs_without_a_finished_round_it_has_failed(
    server: ServerFile, superlink: SuperLink
) -> None:
    folder, look = study(server, "glioma", RUNNING), going_on.going_on(server)
    for _ in range(5):
        look()
    assert superlink.begun == ["glioma"] * 2  # the third, with the one that it began with
    state = read_state(folder)
    assert state["state"] == FAILED
    assert state["said"].startswith(
        "3 runs in a row ended before round 1 was (finished: failed: no heartbeat)"
    )


def test_a_finished_round_between_them_counts(server: ServerFile, superlink: SuperLink) -> None:
    folder, look = study(server, "glioma", RUNNING), going_on.going_on(server)
    look()
    look()
    save_checkpoint(folder / "checkpoints", 1, {"federated": Model({})})
    look()
    look()
    assert superlink.begun == ["glioma"] * 4
    assert read_study(folder).began == (0, 0, 0, 1, 1)
    look()
    look()
    assert (len(superlink.begun), read_state(folder)["state"]) == (5, FAILED)


def test_what_cannot_be_read_or_asked_is_said_once_and_ends_nothing(
    server: ServerFile, superlink: SuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    broken, folder = study(server, "broken", RUNNING), study(server, "glioma", RUNNING)
    (broken / "state.json").write_text("{")
    look, superlink.away = going_on.going_on(server), True
    look()
    look()
    assert caplog.text.count("study broken: ") == 1
    assert caplog.text.count("study glioma: no answer") == 1
    superlink.away = False
    look()
    assert read_study(folder).runs == (1, 101)

"""`fedbrats site status`: the studies of a site by the files that a study leaves there, in every state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedbrats.commands.site.command import main
from fedbrats.commands.site.words import pid_file
from fedbrats.commands.study.starting import study_config
from fedbrats.config.schema import save_config
from fedbrats.config.site_file import load_site_file
from fedbrats.credentials.keys import make_site_key
from fedbrats.engines.superlink import processes
from fedbrats.federation.site.chain import append, egress_file
from fedbrats.files import read_text, write_json
from fedbrats.studies.at_site import approve, digest, take_study
from tests.checks.site.wire import authority
from tests.tiny import MODEL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_site_key(tmp_path / "site.key")
    ca = authority(tmp_path).file.name
    (tmp_path / "site.yaml").write_text(
        f"name: Bonn\nstorage: storage\nkey: site.key\nserver: {{address: 'localhost:1', ca: {ca}}}\n"
        "data: {root: data}\n"
    )
    return tmp_path / "site.yaml"


def take(file: Path, study: str) -> Path:
    """The study came to the site."""
    save_config(study_config(["train=small", *MODEL]), file.parent / "asked.yaml")
    text = read_text(file.parent / "asked.yaml")
    return take_study(load_site_file(file), study, text, digest(text))


def status(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """Exit status, and check -> the rest of its line with the verdict in front."""
    done = main(["status", str(file)])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    told = [line.split(maxsplit=1) for line in lines]
    return done, {text.split(": ")[0]: f"{verdict} {text.split(': ', 1)[1]}" for verdict, text in told}


def test_a_study_from_its_coming_to_its_last_word(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = take(file, "glioma")
    done, found = status(file, capsys)
    assert done == 0
    assert found["processes"].startswith("warning none run here")
    assert found["study glioma"].startswith(
        "warning waits for somebody here: `fedbrats site approve site.yaml glioma`"
    )
    approve(folder)
    assert "not prepared yet" in status(file, capsys)[1]["study glioma"]
    (folder / "config.yaml").write_text("")
    assert status(file, capsys)[1]["study glioma"] == "ok takes part, 0 messages left"
    line = {"study": "glioma", "question": "train", "round": 3, "epsilon": 1.25}
    log = egress_file(load_site_file(file))
    append(log, "Bonn", {**line, "decision": "left"})
    append(log, "Bonn", {**line, "decision": "refused", "study": "another"})
    told = status(file, capsys)[1]["study glioma"]
    assert told.startswith("ok takes part, 1 messages left, the last 20")
    assert told.endswith("(train, round 3), epsilon so far 1.25")
    append(log, "Bonn", {**line, "decision": "changed"})
    assert "; 1 not as they were asked for" in status(file, capsys)[1]["study glioma"]


def test_what_must_be_put_right_sets_the_exit_status(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "site.key").chmod(0o644)
    done, found = status(file, capsys)
    assert (done, found["key"].split()[0]) == (1, "fix")


def test_a_log_that_was_changed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = egress_file(load_site_file(file))
    append(
        log, "Bonn", {"study": "glioma", "question": "train", "round": 1, "epsilon": None, "decision": "left"}
    )
    log.write_text(log.read_text().replace("train", "query"))
    done, found = status(file, capsys)
    assert (done, found["log"].split()[0]) == (1, "fix")


def test_processes_that_run(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(pid_file(load_site_file(file)), {"pid": os.getppid(), "programs": {}})
    with processes.held(pid_file(load_site_file(file))):
        assert status(file, capsys)[1]["processes"] == f"ok run, as process {os.getppid()}"
        monkeypatch.setattr(processes, "_alive", lambda pid: False)
        assert status(file, capsys)[1]["processes"].startswith("warning none")


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path / "nowhere.yaml")]) == 2

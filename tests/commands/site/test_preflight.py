"""`fedbrats site preflight` from the command line: order, exit status, what is written where, and what may be sent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from fedbrats.checks.site import preflight as checks
from fedbrats.checks.site.finding import FIX, OK, Finding
from fedbrats.commands.compose import compose_config
from fedbrats.commands.site.command import WORDS, main
from fedbrats.config.schema import save_config
from fedbrats.config.versions import own_versions
from fedbrats.credentials.keys import make_site_key
from tests.checks.site.wire import authority, certificate, server
from tests.data.brats_files import write_case
from tests.tiny import MODEL

PATIENTS = [f"Muellermann{i}_T1" for i in range(6)]
PLACE = "Strahlenklinik Geheim"  # a folder whose name tells something
ORDER = [
    "site.yaml",
    "key",
    "secret",
    "authority",
    "storage",
    "data.cache",
    "/dev/shm",
    "memory",
    "gpu",
    "name",
    "reach",
]
ORDER += ["certificate", "health", "clock", "versions", "data", "orientation", "labels", "patients", "splits"]
ORDER += ["room", "training step"]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site that lacks nothing but a server: its file, key, authority and six cases of six patients."""
    folder = tmp_path / PLACE
    for name in PATIENTS:
        write_case(folder / "data", name)
    make_site_key(folder / "site.key")
    ca = authority(folder)
    write_site(folder, server={"address": "localhost:1", "ca": str(ca.file), "versions": own_versions()})
    certificate(folder, ca).rename(folder / "server.pem")
    save_config(compose_config(list(MODEL)), tmp_path / "study.yaml")
    return folder


def write_site(folder: Path, **changed: object) -> None:
    file = folder / "site.yaml"
    before = yaml.safe_load(file.read_text()) if file.exists() else {}
    content = {
        "name": "Bonn",
        "storage": "storage",
        "key": "site.key",
        "data": {"root": "data", "cache": "storage/cache"},
        "partition": {"patient_pattern": r"(\w+)_T1"},
        "device": "cpu",
        "policy": {"least_cases": 1},
        "limits": {"free_disk_gb": 0.01},
    }
    file.write_text(yaml.safe_dump(content | before | changed))


def look(folder: Path, *more: str) -> int:
    return main(["preflight", str(folder / "site.yaml"), "--study", str(folder.parent / "study.yaml"), *more])


def files(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def findings(folder: Path) -> dict[str, dict[str, str]]:
    return {found["check"]: found for found in json.loads((folder / "sent.json").read_text())["findings"]}


@pytest.mark.slow  # a process of its own for the training step
def test_a_site_that_lacks_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, sent = files(folder), folder.parent / "sent.json"
    with server(folder / "server.pem") as (port, asked):
        ca = str(folder / "the-federation.crt")
        write_site(folder, server={"address": f"localhost:{port}", "ca": ca, "versions": own_versions()})
        assert look(folder, "--json", str(sent)) == 0
    assert asked.lines == ["GET /health HTTP/1.1"]  # nothing else is sent
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(("ok ", "warning ", "fix "))]
    assert [line.split(maxsplit=1)[1].split(":")[0] for line in lines] == ORDER
    assert "To put right: 0, warnings: 0, all right: 22." in out
    assert list(findings(folder.parent)) == ORDER
    text = sent.read_text()
    assert all(word not in text for word in (*PATIENTS, "Muellermann", PLACE, str(folder)))
    assert "made to be sent" in text
    after = files(folder)
    outside = {file for file in after if not file.startswith(str(folder / "storage"))}
    changed = {file for file in outside if before.get(file) != after[file]}
    assert changed == {str(folder / "site.yaml")}  # by the test itself
    assert [path.name for path in (folder / "storage").iterdir()] == ["cache"]  # its memory of the files


@pytest.fixture
def _no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_step", lambda *parts: Finding("training step", OK, "2 s"))


@pytest.mark.usefixtures("_no_step")
def test_what_is_wrong_is_named_on_the_screen_and_not_in_what_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "data" / PATIENTS[2] / f"{PATIENTS[2]}_t2.nii.gz"
    broken.write_bytes(b"")
    (folder / "site.key").chmod(0o644)
    write_site(folder, storage=str(folder / "data" / PATIENTS[0] / f"{PATIENTS[0]}_seg.nii.gz"))
    assert look(folder, "--json", str(folder.parent / "sent.json")) == 1
    out = capsys.readouterr().out
    assert f"{broken}: empty file" in out
    found = findings(folder.parent)
    wrong = {check for check, finding in found.items() if finding["verdict"] == FIX}
    assert wrong == {"key", "storage", "reach", "data"}  # nobody listens
    text = (folder.parent / "sent.json").read_text()
    assert all(word not in text for word in (*PATIENTS, "Muellermann", PLACE, str(folder)))


@pytest.mark.usefixtures("_no_step")
def test_what_rests_on_something_wrong_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_site(folder, server={"address": "localhost:1", "ca": "nowhere.crt"}, data={"root": "nowhere"})
    assert look(folder) == 1
    out = capsys.readouterr().out
    assert "server: not looked at: put authority right first." in out
    assert "training step: not looked at: put data right first." in out


def test_a_file_that_is_not_understood_ends_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_site(folder, polcy={"least_cases": 3})
    assert look(folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fix     site.yaml: ")
    assert "polcy" in lines[1]
    assert lines[2] == "To put right: 1, warnings: 0, all right: 0."


def test_a_call_that_cannot_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["takeoff"]) == 2
    assert "usage: fedbrats site WORD" in capsys.readouterr().err
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in WORDS)
    study = folder.parent / "study.yaml"
    study.write_text(study.read_text().replace("fedbrats.losses", "os.path"))
    assert look(folder) == 2
    assert "its configuration names os.path" in capsys.readouterr().out
    assert look(folder.parent, "--study", os.devnull) in (1, 2)

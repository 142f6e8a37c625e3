"""What `fedbrats federation` prints and returns; what it does is tested in tests/credentials."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fedbrats.commands.federation.command import main
from fedbrats.credentials import sites
from fedbrats.credentials.certificates import names_of, now, read_certificates
from fedbrats.credentials.folder import Folder, begin
from fedbrats.credentials.keys import make_site_key

CLOSED = ["--superlink", "localhost:1"]  # where nobody listens


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_PROXY", "*")


def began() -> Folder:
    assert main(["init", "--name", "Fed.example.org", "--also", "superlink", "--ip", "10.0.0.1"]) == 0
    return Folder(Path("federation"))


def test_a_federation_from_beginning_to_status(capsys: pytest.CaptureFixture[str]) -> None:
    folder = began()
    assert names_of(read_certificates(folder.server)[0]) == [
        *("fed.example.org", "superlink", "localhost", "10.0.0.1", "127.0.0.1")
    ]
    assert main(["enrol", "CBICA", *CLOSED]) == 0
    make_site_key(Path("own"))
    assert main(["enrol", "Upenn", "--public-key", "own.pub", *CLOSED]) == 0
    assert main(["renew", "CBICA", *CLOSED]) == 0
    capsys.readouterr()
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[3:-1]] == ["authority", "server", "CBICA", "CBICA", "Upenn"]
    assert [line.split()[-2] for line in lines[3:-1]] == ["valid", "valid", "replaced", "valid", "valid"]
    fingerprints = [key.fingerprint for keys in folder.read().sites.values() for key in keys]
    assert [word for word in fingerprints if word not in "".join(lines)] == []


def test_the_private_key_in_a_kit_is_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    began()
    main(["enrol", "CBICA", *CLOSED])
    said = capsys.readouterr()
    assert "federation/kits/CBICA/1: what CBICA gets" in said.out
    assert "then delete this copy" in said.out
    assert "no answer from the SuperLink at localhost:1" in said.err


def test_a_revocation_that_no_superlink_heard_of_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    folder = began()
    main(["enrol", "CBICA", *CLOSED])
    for words in ("CBICA: revoked in the record", "CBICA: no key of it held"):
        assert main(["revoke", "CBICA", *CLOSED]) == 1
        said = capsys.readouterr()
        assert words in said.out
        assert "goes on as before until it is told or restarted" in said.err
    assert folder.read().keys_at(now()) == []


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [
        (300, 0, "valid"),
        (340, 0, "server: fedbrats federation renew server"),
        (340, 0, "A: fedbrats federation renew A"),
        (366, 1, "expired"),
        (366, 1, "A: fedbrats federation enrol A --again"),
    ],
)
def test_status_says_what_to_renew(
    days: int, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = now() - timedelta(days=days)
    sites.enrol(begin(Path("federation"), "fed", [], 8000, at=made), "A", at=made)
    assert main(["status"]) == status
    assert words in capsys.readouterr().out


def test_names_are_added_when_the_server_is_renewed(capsys: pytest.CaptureFixture[str]) -> None:
    folder = began()
    assert main(["renew", "server", "--also", "gate.example.org", "--ip", "::1", "--days", "30"]) == 0
    made = read_certificates(folder.server)[0]
    assert {"fed.example.org", "gate.example.org", "::1"} < set(names_of(made))
    assert f"valid until {made.not_valid_after_utc:%Y-%m-%d}" in capsys.readouterr().out
    assert main(["renew", "server"]) == 0  # they stay
    assert "gate.example.org" in names_of(read_certificates(folder.server)[0])


def test_a_renewed_authority_says_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    began()
    assert main(["renew", "ca"]) == 0
    assert "hand it out to all sites" in capsys.readouterr().out
    assert main(["renew", "ca", "--new-key"]) == 0
    assert "once they all have it: fedbrats federation renew server" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init", "--name", "fed"], "is there already"),
        (["enrol", "a/b"], "slash"),
        (["renew", "Nowhere"], "no key that holds"),
        (["renew", "CBICA", "--new-key"], "for server or ca"),
        (["renew", "server", "--public-key", "x"], "for a site"),
        (["renew", "ca", "--ip", "10.0.0.2"], "renew server"),
        (["revoke", "Nowhere"], "no such site"),
        (["enrol", "B", "--public-key", "missing"], "missing: no public key"),
        (["status", "--folder", "elsewhere"], "federation init"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began()
    main(["enrol", "CBICA", *CLOSED])
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["init", "--name", "10.0.0.1"],
        ["init", "--name", "a b"],
        ["init", "--name", "-x"],
        ["init", "--name", "fed", "--ip", "fed"],
        ["init", "--name", "fed", "--port", "0"],
        ["init", "--name", "fed", "--days", "0"],
        ["init", "--name", "fed", "--days", "1.5"],
        ["renew", "A", "--overlap", "-1"],
        ["init"],
        [],
    ],
)
def test_a_wrong_word_ends_before_anything_is_made(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []

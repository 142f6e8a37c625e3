"""Key and authority: as ssh-keygen and openssl make them, and everything that may be wrong with the files."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbrats.checks.site.credentials import check_authority, check_key, check_secret
from fedbrats.checks.site.finding import FIX, OK, WARNING
from fedbrats.credentials.keys import make_secret
from tests.checks.site.wire import authority


def key(folder: Path, *options: str) -> Path:
    file = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", *options, "-f", str(file)], check=True)
    return file


def test_a_key_of_ssh_keygen(tmp_path: Path) -> None:
    found = check_key(str(key(tmp_path, "-t", "ecdsa", "-b", "384")))
    assert found.verdict == OK
    public = subprocess.run(
        ["ssh-keygen", "-l", "-f", found.here], check=True, capture_output=True, text=True
    )
    assert found.facts["fingerprint"] == public.stdout.split()[1]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o777])
def test_a_key_that_others_may_read(mode: int, tmp_path: Path) -> None:
    file = key(tmp_path, "-t", "ecdsa", "-b", "384")
    file.chmod(mode)
    found = check_key(str(file))
    assert found.verdict == FIX
    assert "others on this machine may use" in found.said
    assert "chmod 600" in found.said
    assert str(tmp_path) not in str(found.to_json())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-t", "ed25519"), "not a key on NIST P-384"),
        (("-t", "rsa", "-b", "2048"), "not a key on NIST P-384"),
        (("-t", "ecdsa", "-b", "384", "-N", "a password"), "no private key can be read"),
    ],
)
def test_a_key_of_another_kind(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    found = check_key(str(key(tmp_path, *options)))
    assert found.verdict == FIX
    assert said in found.said


def test_no_key_and_no_name_of_one(tmp_path: Path) -> None:
    missing = check_key(str(tmp_path / "Nowhere"))
    assert missing.verdict == check_key("").verdict == FIX
    assert "No such file or directory" in missing.said
    assert "Nowhere" not in str(missing.to_json())
    public = key(tmp_path, "-t", "ecdsa", "-b", "384").with_suffix(".pub")
    public.chmod(0o600)
    assert check_key(str(public)).verdict == FIX


def test_an_authority_of_openssl(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    command = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-nodes",
        "-days",
        "365",
        "-subj",
        "/CN=lab",
    ]
    out = ["-keyout", os.devnull, "-out", str(file)]
    subprocess.run(["openssl", *command, *out], check=True, capture_output=True)
    assert check_authority(str(file)).verdict == OK


def test_an_authority_before_its_time_and_towards_its_end(tmp_path: Path) -> None:
    file, now = str(authority(tmp_path, days=100).file), datetime.now(UTC)
    verdicts = [check_authority(file, now + timedelta(days=days)).verdict for days in (-10, 0, 60, 80, 101)]
    assert verdicts == [FIX, OK, OK, WARNING, FIX]
    assert "expired on" in check_authority(file, now + timedelta(days=101)).said


def test_an_expired_authority_by_the_clock(tmp_path: Path) -> None:
    assert check_authority(str(authority(tmp_path, days=-3).file)).verdict == FIX


def test_no_authority(tmp_path: Path) -> None:
    (tmp_path / "Text").write_text("no certificate")
    for file in ("", str(tmp_path / "Nowhere"), str(tmp_path / "Text"), str(tmp_path)):
        found = check_authority(file)
        assert found.verdict == FIX
        assert str(tmp_path) not in str(found.to_json())


def test_an_authority_that_flower_could_not_read(tmp_path: Path) -> None:
    file = authority(tmp_path).file
    file.write_text("# Universität\n" + file.read_text(), encoding="utf-8")
    found = check_authority(str(file))
    assert found.verdict == FIX
    assert "letters other than ASCII" in found.said


def test_the_secret_between_the_processes_of_the_site(tmp_path: Path) -> None:
    storage = tmp_path / "Planted"
    assert check_secret(str(storage)).verdict == OK  # none yet
    secret = make_secret(storage / "superexec.secret")
    assert check_secret(str(storage)).verdict == OK
    secret.chmod(0o640)
    found = check_secret(str(storage))
    assert (found.verdict, found.facts) == (FIX, {"mode": "0640"})
    assert "Planted" not in str(found.to_json())

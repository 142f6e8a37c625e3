"""What a user is told when the server cannot be spoken to, each refusal really caused on the wire."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedbrats.credentials.certificates import (
    certificate_text,
    key_text,
    new_key,
    now,
    read_certificates,
    server_certificate,
)
from fedbrats.credentials.folder import AUTHORITY_DAYS, Folder, begin
from fedbrats.credentials.keys import make_site_key
from fedbrats.credentials.refusals import refusal
from fedbrats.credentials.renewing import renew_authority, renew_server
from tests.credentials.serving import of, served


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine that runs the tests."""
    monkeypatch.setenv("NO_PROXY", "*")


def made(folder: Path, at: datetime | None = None, days: int = 365) -> Folder:
    return begin(folder, "localhost", [], 8000, days, at)


def asked(folder: Folder, ca: Path | None = None, **more) -> str | None:
    """What a site with the certificates `ca`, by default the federation's, is told of the federation's server."""
    with served(*of(folder), **more) as port:
        return refusal(f"localhost:{port}", ca or folder.authority)


def copied(folder: Folder, file: Path) -> Path:
    """`ca.crt` as the sites have it now."""
    file.write_text(folder.authority.read_text())
    return file


def test_the_right_server_is_accepted(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    make_site_key(tmp_path / "site.key")
    with served(*of(folder)) as port:
        for host in ("localhost", "127.0.0.1"):
            assert refusal(f"{host}:{port}", folder.authority, tmp_path / "site.key") is None


def test_another_authority(tmp_path: Path) -> None:
    said = asked(made(tmp_path / "fed"), made(tmp_path / "other").authority)
    assert said
    assert "not by the authority in" in said
    assert "take ca.crt from the federation's server anew" in said
    assert "CN=fedbrats authority of localhost" in said


def test_an_expired_certificate_says_since_when_and_what_renews_it(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", now() - timedelta(days=40), days=30)
    until = read_certificates(folder.server)[0].not_valid_after_utc
    said = asked(folder)
    assert said
    assert f"expired on {until:%Y-%m-%d}: renew it at the server with" in said
    assert "`fedbrats federation renew server`" in said
    renew_server(folder)
    assert asked(folder) is None


def test_an_expired_authority_is_renewed_at_the_server_and_handed_out(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", now() - timedelta(days=AUTHORITY_DAYS + 1))
    old = copied(folder, tmp_path / "ca.crt")
    said = asked(folder)
    assert said
    assert f"the authority in {folder.authority} expired on" in said
    assert "`fedbrats federation renew ca`" in said
    renew_authority(folder)
    renew_server(folder)
    assert asked(folder) is None
    said = asked(folder, old)
    assert said
    assert f"the authority in {old} expired" in said


def test_another_name_of_the_server(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    start, end, key = now(), now() + timedelta(days=1), new_key()
    other = server_certificate(
        ["fed.example.org", "10.0.0.1"], key.public_key(), folder.signing(), start, end
    )
    folder.server.write_text(certificate_text(other))
    folder.server_key.write_text(key_text(key))
    with served(*of(folder)) as port:
        for host in ("localhost", "127.0.0.1"):
            said = refusal(f"{host}:{port}", folder.authority)
            assert said
            assert "is for fed.example.org, 10.0.0.1: correct server.address" in said
            assert "renew server --also NAME" in said


def test_a_clock_that_makes_the_certificate_too_early(tmp_path: Path) -> None:
    said = asked(
        made(tmp_path / "fed", now() + timedelta(hours=1))
    )  # as a site sees it whose clock is behind
    assert said
    assert "set the clock (NTP)" in said
    assert "fedbrats federation renew server" in said


def test_a_clock_a_few_minutes_behind_is_let_pass_when_the_certificate_is_new(tmp_path: Path) -> None:
    assert asked(made(tmp_path / "fed", now() + timedelta(minutes=4))) is None


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (timedelta(hours=1), "behind that of"),
        (timedelta(hours=-1), "ahead of that of"),
        (timedelta(seconds=-30), "ahead of that of"),  # Flower lets a site be ahead by 5 s
        (timedelta(seconds=120), None),
        (timedelta(seconds=0), None),
    ],
)
def test_a_clock_that_the_servers_signatures_do_not_stand(
    off: timedelta, words: str | None, tmp_path: Path
) -> None:
    said = asked(made(tmp_path / "fed"), clock=off)
    assert (said is None) if words is None else (said and words in said and "time server (NTP)" in said)


def test_the_tolerance_of_clocks_is_that_of_flower() -> None:
    from fedbrats.credentials import refusals
    from fedbrats.federation import flower_env  # noqa: F401  before any flwr import
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE  # isort: skip

    assert refusals.AHEAD == SYSTEM_TIME_TOLERANCE
    assert refusals.BEHIND == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


def test_who_speaks_no_tls_does_not_answer_or_is_not_there(tmp_path: Path) -> None:
    ca = made(tmp_path / "fed").authority
    with served(None, None) as port:
        assert "does not speak TLS" in str(refusal(f"localhost:{port}", ca))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = silent.getsockname()[1]
        said = refusal(f"127.0.0.1:{silent_port}", ca, timeout=0.3)
        assert said
        assert "does not answer within 0.3 s" in said
    assert "is the server running" in str(refusal(f"127.0.0.1:{silent_port}", ca))
    assert "cannot be reached" in str(refusal("nowhere.invalid:8000", ca))
    assert "cannot be reached" in str(refusal("localhost:port", ca))


def test_patience_is_with_who_does_not_answer_and_not_with_who_answers_wrongly(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    for address in ("localhost:1", "nowhere.invalid:8000"):
        assert refusal(address, folder.authority, patient=True) is None
    with served(None, None) as port:
        assert "does not speak TLS" in str(refusal(f"localhost:{port}", folder.authority, patient=True))
    assert "cannot be reached" in str(refusal("localhost:port", folder.authority, patient=True))


def test_files_of_the_site_are_looked_at_first(tmp_path: Path) -> None:
    ca, key = made(tmp_path / "fed").authority, tmp_path / "site.key"
    assert f"{tmp_path / 'no'}: no certificate" in str(refusal("nowhere.invalid:1", tmp_path / "no"))
    assert "no private key" in str(refusal("nowhere.invalid:1", ca, key))
    make_site_key(key)
    key.chmod(0o644)
    assert "chmod 600" in str(refusal("nowhere.invalid:1", ca, key))


def test_a_renewed_server_is_accepted_by_sites_with_the_authority_they_have(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    held, before = copied(folder, tmp_path / "ca.crt"), folder.server_key.read_text()
    renew_server(folder)
    assert asked(folder, held) is None
    assert folder.server_key.read_text() == before
    renew_server(folder, other_key=True)
    assert asked(folder, held) is None
    assert folder.server_key.read_text() != before


def test_an_authority_renewed_with_its_key_is_accepted_beside_the_old_one(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", now() - timedelta(days=AUTHORITY_DAYS - 2))
    old = copied(folder, tmp_path / "ca.crt")
    renew_authority(folder)
    renew_server(folder)
    assert len(read_certificates(folder.authority)) == 2
    assert asked(folder, old) is None
    assert asked(folder) is None
    assert read_certificates(folder.server)[0].not_valid_after_utc > now() + timedelta(days=300)


def test_the_old_authority_may_expire_in_the_bundle(tmp_path: Path) -> None:
    began = now() - timedelta(days=AUTHORITY_DAYS, hours=1)
    folder = made(tmp_path / "fed", began)
    renew_authority(folder, at=now() - timedelta(days=1))
    renew_server(folder)
    new, old = read_certificates(folder.authority)
    assert old.not_valid_after_utc < now() < new.not_valid_after_utc
    assert asked(folder) is None


def test_a_signing_authority_that_expired_is_told_from_others_in_the_bundle(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", now() - timedelta(days=AUTHORITY_DAYS + 1))
    held = copied(folder, tmp_path / "ca.crt")
    held.write_text(held.read_text() + made(tmp_path / "other").authority.read_text())
    renew_authority(folder)
    renew_server(folder)
    said = asked(folder, held)
    assert said
    assert f"the authority in {held} that signed the certificate of" in said
    assert "has expired" in said


def test_an_authority_with_another_key_has_an_overlap_until_the_server_is_renewed(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    old = copied(folder, tmp_path / "old.crt")
    renew_authority(folder, other_key=True)
    new = copied(folder, tmp_path / "new.crt")
    assert asked(folder, old) is None  # the server goes on with its certificate
    assert asked(folder, new) is None
    renew_server(folder)
    assert asked(folder, new) is None
    said = asked(folder, old)  # a site that missed it is told what to do
    assert said
    assert "take ca.crt from the federation's server anew" in said


def test_a_bundle_with_words_in_another_alphabet_is_named(tmp_path: Path) -> None:
    """Flower's SuperNode reads ASCII only."""
    folder = made(tmp_path / "fed")
    folder.authority.write_text("# Universität\n" + folder.authority.read_text(), encoding="utf-8")
    assert f"{folder.authority}: holds letters other than ASCII" in str(asked(folder))

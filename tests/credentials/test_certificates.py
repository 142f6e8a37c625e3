"""Certificates as another tool, openssl, reads and judges them."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import (
    authority_certificate,
    certificate_text,
    fingerprint,
    key_text,
    names_of,
    new_key,
    now,
    read_certificates,
    read_key,
    server_certificate,
    signed_by,
)
from fedbrats.credentials.folder import Folder, begin
from tests.credentials.serving import of, served

openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return begin(tmp_path_factory.mktemp("made") / "federation", "fed.example.org", ["10.1.2.3", "::1"], 8000)


def say(*words: str | Path) -> str:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


@openssl
def test_openssl_accepts_the_servers_certificate_for_its_names_and_for_servers_only(folder: Folder) -> None:
    judged = ["verify", "-x509_strict", "-CAfile", folder.authority]
    for more in (
        ["-purpose", "sslserver", "-verify_hostname", "fed.example.org"],
        ["-purpose", "sslserver", "-verify_ip", "10.1.2.3"],
        ["-verify_ip", "::1"],
    ):
        assert say(*judged, *more, folder.server).strip().endswith("OK")
    assert "hostname mismatch" in say(*judged, "-verify_hostname", "other.example.org", folder.server)
    assert "purpose" in say(*judged, "-purpose", "sslclient", folder.server)


@openssl
def test_openssl_reads_what_authority_and_server_may_do(folder: Folder) -> None:
    above = re.sub(r"\s+", " ", say("x509", "-in", folder.authority, "-noout", "-text"))
    assert "X509v3 Basic Constraints: critical CA:TRUE, pathlen:0" in above
    assert "X509v3 Key Usage: critical Certificate Sign, CRL Sign" in above
    assert "ASN1 OID: secp384r1" in above
    assert "ecdsa-with-SHA384" in above
    below = re.sub(r"\s+", " ", say("x509", "-in", folder.server, "-noout", "-text"))
    assert "X509v3 Basic Constraints: critical CA:FALSE" in below
    assert "X509v3 Key Usage: critical Digital Signature" in below
    assert "X509v3 Extended Key Usage: TLS Web Server Authentication" in below
    assert "DNS:fed.example.org, IP Address:10.1.2.3, IP Address:0:0:0:0:0:0:0:1, DNS:localhost" in below


@openssl
def test_the_fingerprint_is_that_of_openssl(folder: Folder) -> None:
    said = say("x509", "-in", folder.authority, "-noout", "-fingerprint", "-sha256")
    assert said.strip().partition("=")[2] == fingerprint(read_certificates(folder.authority)[0])


@openssl
def test_an_authority_below_the_authority_is_not_believed(folder: Folder, tmp_path: Path) -> None:
    key, start, end = new_key(), now() - timedelta(hours=1), now() + timedelta(days=9)
    false = authority_certificate("false", key, start, end)
    builder = (
        x509.CertificateBuilder(extensions=list(false.extensions))
        .subject_name(false.subject)
        .issuer_name(read_certificates(folder.authority)[0].subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    signing = read_key(folder.authority_key)
    between = builder.sign(signing, false.signature_hash_algorithm)
    leaf = server_certificate(["evil.org"], new_key().public_key(), (key, between), start, end)
    (tmp_path / "between").write_text(certificate_text(between))
    (tmp_path / "leaf").write_text(certificate_text(leaf))
    chain = ["verify", "-CAfile", folder.authority, "-untrusted", tmp_path / "between", tmp_path / "leaf"]
    assert "path length constraint exceeded" in say(*chain)


def test_a_strict_handshake_succeeds(folder: Folder) -> None:
    context = ssl.create_default_context(cafile=folder.authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
    with served(*of(folder)) as port:
        for name in ("localhost", "127.0.0.1"):
            wire = socket.create_connection(("127.0.0.1", port), 5)
            with context.wrap_socket(wire, server_hostname=name) as shaken:
                assert shaken.version() == "TLSv1.3"


def test_the_servers_certificate_never_outlives_its_authority() -> None:
    key, start = new_key(), now()
    above = authority_certificate("fed", key, start, start + timedelta(days=10))
    below = server_certificate(["fed"], key.public_key(), (key, above), start, start + timedelta(days=365))
    assert below.not_valid_after_utc == above.not_valid_after_utc
    assert names_of(below) == ["fed"]
    assert names_of(above) == []
    assert signed_by(below, above)
    assert not signed_by(below, authority_certificate("fed", new_key(), start, start + timedelta(days=10)))


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pem"
    for text in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(text)
        for read in (read_certificates, read_key):
            with pytest.raises(ConfigError, match=re.escape(str(file))):
                read(file)
    file.write_text(key_text(new_key()))
    with pytest.raises(ConfigError, match="no certificate"):
        read_certificates(file)

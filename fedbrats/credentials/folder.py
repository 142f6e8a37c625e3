"""The folder of a federation: where its authority, its server's certificate and its record lie, and how they begin.

federation.json      the record
authority/ca.key     signs certificates; may lie elsewhere while no certificate is made
server/              all that the server's processes read: ca.crt, server.crt, server.key, superexec.secret
kits/<site>/         what a site gets
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import (
    SLACK,
    authority_certificate,
    belongs,
    certificate_text,
    fingerprint,
    key_text,
    new_key,
    now,
    read_certificates,
    read_key,
    server_certificate,
)
from fedbrats.credentials.keys import make_secret
from fedbrats.credentials.record import Federation, Issued, read_record, write_record
from fedbrats.files import PRIVATE_FILE, private_folder, replace_folder, write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

AUTHORITY_DAYS, SERVER_DAYS, KEY_DAYS = 3650, 365, 365


@dataclass(frozen=True)
class Folder:
    """Paths inside the folder of a federation."""

    path: Path

    @property
    def record(self) -> Path:
        return self.path / "federation.json"

    @property
    def authority_key(self) -> Path:
        return self.path / "authority" / "ca.key"

    @property
    def authority(self) -> Path:
        """The authority's certificate, the newest first where it was renewed."""
        return self.path / "server" / "ca.crt"

    @property
    def server(self) -> Path:
        return self.path / "server" / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.path / "server" / "server.key"

    @property
    def secret(self) -> Path:
        """Between the server's processes, of Flower's SuperLink and SuperExec."""
        return self.path / "server" / "superexec.secret"

    def kit(self, site: str) -> Path:
        return self.path / "kits" / site

    def read(self) -> Federation:
        """The record.

        Raises:
            ConfigError: there is none, or it cannot be read.
        """
        return read_record(self.record)

    @contextmanager
    def changing(self) -> Iterator[Federation]:
        """The record, while nobody else changes the folder.

        Raises:
            ConfigError: there is none, or it cannot be read.
        """
        self.read()
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read()
        finally:
            os.close(lock)

    def signing(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """The authority: its key and its newest certificate.

        Raises:
            ConfigError: the key is not here, or belongs to another certificate.
        """
        if not self.authority_key.is_file():
            raise ConfigError(
                f"{self.authority_key}: not here; put it back for as long as certificates are made"
            )
        key, certificate = read_key(self.authority_key), read_certificates(self.authority)[0]
        if not belongs(key, certificate):
            raise ConfigError(
                f"{self.authority_key} does not belong to {self.authority}: a renewal was interrupted; "
                "say `fedbrats federation renew ca --new-key` again"
            )
        return key, certificate


def begin(
    path: Path, name: str, more: list[str], port: int, days: int = SERVER_DAYS, at: datetime | None = None
) -> Folder:
    """Make a federation: its authority, its server's certificate and secret, and its record; all of it or nothing.

    Args:
        path: of the folder, which is not there yet.
        name: of the server, as the sites call it.
        more: further DNS names and addresses of it.
        port: by which the sites reach it.
        days: that its certificate is valid; its authority's is `AUTHORITY_DAYS`.
        at: the time, by default now.

    Raises:
        ConfigError: the folder is there.
    """
    if path.exists():
        raise ConfigError(f"{path}: is there already; nothing in it is overwritten, choose another --folder")
    at = at or now()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Folder(path.with_name(f".partial-{os.urandom(4).hex()}-{path.name}"))
    try:
        for folder in (
            unfinished.path,
            *(unfinished.path / part for part in ("authority", "server", "kits")),
        ):
            private_folder(folder)
        names = list(dict.fromkeys([name, *more, "localhost", "127.0.0.1"]))
        key = new_key()
        above = authority_certificate(name, key, at - SLACK, at + timedelta(days=AUTHORITY_DAYS))
        server_key = new_key()
        end = at + timedelta(days=days)
        below = server_certificate(names, server_key.public_key(), (key, above), at - SLACK, end)
        write_text(unfinished.authority_key, key_text(key), private=True)
        write_text(unfinished.authority, certificate_text(above))
        write_text(unfinished.server_key, key_text(server_key), private=True)
        write_text(unfinished.server, certificate_text(below))
        make_secret(unfinished.secret)
        made = [issued("authority", above), issued("server", below)]
        write_record(unfinished.record, Federation(name, port, names, made))
        replace_folder(unfinished.path, path)
    finally:
        shutil.rmtree(unfinished.path, ignore_errors=True)
    return Folder(path)


def issued(what: str, certificate: x509.Certificate) -> Issued:
    """A certificate as the record keeps it."""
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Issued(what, fingerprint(certificate), since.isoformat(), until.isoformat())

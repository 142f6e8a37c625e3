"""Another certificate for the server or the authority, before the old one expires."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509

from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import (
    SLACK,
    authority_certificate,
    certificate_text,
    key_text,
    new_key,
    now,
    read_certificates,
    read_key,
    server_certificate,
)
from fedbrats.credentials.folder import AUTHORITY_DAYS, SERVER_DAYS, Folder, issued
from fedbrats.credentials.record import write_record
from fedbrats.files import write_text


def renew_server(
    folder: Folder,
    more: list[str] | None = None,
    days: int = SERVER_DAYS,
    other_key: bool = False,
    at: datetime | None = None,
) -> x509.Certificate:
    """Give the server another certificate, signed by the newest authority. It is used from its next start on.

    Args:
        folder: of the federation.
        more: DNS names and addresses that it is for as well from now on.
        days: that it is valid, as far as the authority is.
        other_key: make a new key for it, too.
        at: the time, by default now.

    Raises:
        ConfigError: the authority's key is not here, or the authority has expired.
    """
    at = at or now()
    with folder.changing() as record:
        authority = folder.signing()
        if authority[1].not_valid_after_utc <= at:
            raise ConfigError(
                f"the authority expired on {authority[1].not_valid_after_utc:%Y-%m-%d}: "
                "`fedbrats federation renew ca` comes first"
            )
        record = replace(record, names=list(dict.fromkeys([*record.names, *(more or [])])))
        key = new_key() if other_key or not folder.server_key.exists() else read_key(folder.server_key)
        end = at + timedelta(days=days)
        certificate = server_certificate(record.names, key.public_key(), authority, at - SLACK, end)
        write_text(folder.server_key, key_text(key), private=True)
        write_text(folder.server, certificate_text(certificate))
        write_record(folder.record, record.with_certificates(issued("server", certificate)))
    return certificate


def renew_authority(
    folder: Folder, days: int = AUTHORITY_DAYS, other_key: bool = False, at: datetime | None = None
) -> x509.Certificate:
    """Give the authority another certificate, beside the old ones in `ca.crt` as long as these are valid.

    With the same key, whoever holds the old certificate accepts what is signed after it, until that expires. With
    another key, the server keeps its certificate of the old one until `renew_server`, which has to wait until all
    sites hold the new `ca.crt`.

    Args:
        folder: of the federation.
        days: that it is valid.
        other_key: make a new key.
        at: the time, by default now.

    Raises:
        ConfigError: the authority's key is not here.
    """
    at = at or now()
    with folder.changing() as record:
        earlier = read_certificates(folder.authority)
        key = new_key() if other_key else folder.signing()[0]
        certificate = authority_certificate(record.name, key, at - SLACK, at + timedelta(days=days))
        valid = [one for one in earlier if one.not_valid_after_utc > at]
        write_text(folder.authority_key, key_text(key), private=True)
        write_text(folder.authority, certificate_text(certificate, *valid))
        write_record(folder.record, record.with_certificates(issued("authority", certificate)))
    return certificate

"""What of a federation expires, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from shlex import quote

from fedbrats.credentials.certificates import belongs, now, read_certificates, read_key, signed_by
from fedbrats.credentials.folder import Folder
from fedbrats.credentials.record import SiteKey

WARN_DAYS = 30


@dataclass(frozen=True)
class Expiry:
    """One thing with a date."""

    what: str  # authority | server | name of a site
    detail: str
    until: datetime
    state: str  # valid | soon | expired | revoked | replaced
    fix: str  # what to do, "" where nothing is to be done

    def days(self, at: datetime) -> int:
        """Whole days left at `at`; negative when it has expired."""
        return (self.until - at).days


def expiries(folder: Folder, at: datetime | None = None) -> list[Expiry]:
    """Everything of a federation that has a date: authority, server, the keys of its sites.

    Raises:
        ConfigError: the record or a certificate cannot be read.
    """
    at = at or now()
    record = folder.read()
    authorities = read_certificates(folder.authority)
    server = read_certificates(folder.server)[0]
    newest, *older = authorities
    rows = [_row("authority", "newest", newest.not_valid_after_utc, at, "renew ca")]
    rows += [Expiry("authority", "older", one.not_valid_after_utc, "replaced", "") for one in older]
    row = _row("server", ", ".join(record.names), server.not_valid_after_utc, at, "renew server")
    if not signed_by(server, newest) and not row.fix:
        row = replace(row, fix="once all sites hold the new ca.crt: fedbrats federation renew server")
    rows.append(row)
    return rows + [row for site in sorted(record.sites) for row in _of_site(site, record.sites[site], at)]


def faults(folder: Folder) -> list[str]:
    """What does not fit together in the folder, with the command that mends it.

    Raises:
        ConfigError: a file of it cannot be read.
    """
    found = []
    server, authorities = read_certificates(folder.server)[0], read_certificates(folder.authority)
    if not any(signed_by(server, one) for one in authorities):
        found.append(
            "server.crt was not signed by an authority of ca.crt: `fedbrats federation renew server`"
        )
    if not belongs(read_key(folder.server_key), server):
        found.append("server.key does not belong to server.crt: `fedbrats federation renew server`")
    return found


def _of_site(site: str, keys: list[SiteKey], at: datetime) -> Iterator[Expiry]:
    """The keys of a site; one that was followed by another needs nothing to be done."""
    for place, key in enumerate(keys):
        until, last = datetime.fromisoformat(key.until), place == len(keys) - 1
        if key.revoked:
            yield Expiry(site, key.fingerprint, datetime.fromisoformat(key.revoked), "revoked", "")
        elif last:
            command = f"renew {quote(site)}" if until > at else f"enrol {quote(site)} --again"
            yield _row(site, key.fingerprint, until, at, command)
        else:
            yield Expiry(site, key.fingerprint, until, "replaced", "")


def _row(what: str, detail: str, until: datetime, at: datetime, command: str) -> Expiry:
    left = until - at
    state = "expired" if left.total_seconds() <= 0 else "soon" if left.days < WARN_DAYS else "valid"
    fix = f"fedbrats federation {command}" if state != "valid" and command else ""
    return Expiry(what, detail, until, state, fix)

"""Sites of a federation: enrolled, given another key, revoked."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote

from fedbrats.config.names import check_institutions
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import now
from fedbrats.credentials.folder import KEY_DAYS, Folder
from fedbrats.credentials.keys import fingerprint, read_public_key
from fedbrats.credentials.kit import make_kit
from fedbrats.credentials.record import Federation, SiteKey, write_record

PARTS = ("ca", "server")  # what else `renew` takes
OVERLAP_DAYS = 14  # that a key still holds beside the one that follows it


def enrol(
    folder: Folder,
    site: str,
    public_key: Path | None = None,
    again: bool = False,
    days: int = KEY_DAYS,
    at: datetime | None = None,
) -> Path:
    """Let a site in and return its kit, a folder.

    Args:
        folder: of the federation.
        site: name of the institution.
        public_key: of a key that the site made itself; without one, a key is made and lies in the kit.
        again: the site may be one that was revoked.
        days: that the key holds.
        at: the time, by default now.

    Raises:
        ConfigError: a bad name, a site that is enrolled, or a key that somebody has or had.
    """
    at = at or now()
    check_institutions([site], "call the site otherwise")
    if site.casefold() in PARTS:
        raise ConfigError(f"institution {site!r} is a word of `renew`; call the site otherwise")
    with folder.changing() as record:
        if taken := next((s for s in record.sites if s != site and s.casefold() == site.casefold()), None):
            raise ConfigError(
                f"{site}: too like {taken}, which is enrolled; letter case alone tells no sites apart"
            )
        earlier = record.sites.get(site, [])
        if any(key.holds(at) for key in earlier):
            raise ConfigError(
                f"{site}: enrolled already; another key is `fedbrats federation renew {quote(site)}`"
            )
        if earlier and not again:
            raise ConfigError(
                f"{site}: was enrolled before, its key was revoked or ran out; say --again to let it in"
            )
        return _give_key(folder, record, site, earlier, public_key, at, days)


def renew_key(
    folder: Folder,
    site: str,
    public_key: Path | None = None,
    days: int = KEY_DAYS,
    overlap: int = OVERLAP_DAYS,
    at: datetime | None = None,
) -> Path:
    """Give a site another key and return its new kit; the one it has holds for `overlap` more days, at most.

    Raises:
        ConfigError: the site has no key that holds, or the new one is one that somebody has or had.
    """
    at = at or now()
    with folder.changing() as record:
        earlier = record.sites.get(site, [])
        if not any(key.holds(at) for key in earlier):
            raise ConfigError(
                f"{site}: has no key that holds; `fedbrats federation enrol {quote(site)} --again` lets it in"
            )
        end = at + timedelta(days=overlap)
        ending = [
            replace(key, until=min(end, datetime.fromisoformat(key.until)).isoformat())
            if key.holds(at)
            else key
            for key in earlier
        ]
        return _give_key(folder, record, site, ending, public_key, at, days)


def revoke(folder: Folder, site: str, at: datetime | None = None) -> bool:
    """Let a site in no more: none of its keys holds from now on. False if none held before.

    Raises:
        ConfigError: no such site.
    """
    at = at or now()
    with folder.changing() as record:
        keys = record.sites.get(site)
        if keys is None:
            known = ", ".join(sorted(record.sites)) or "none"
            raise ConfigError(f"{site}: no such site; enrolled are: {known}")
        if not any(key.holds(at) for key in keys):
            return False
        ended = [replace(key, revoked=at.isoformat()) if key.holds(at) else key for key in keys]
        write_record(folder.record, record.with_keys(site, ended))
    return True


def _give_key(
    folder: Folder,
    record: Federation,
    site: str,
    earlier: list[SiteKey],
    public_key: Path | None,
    at: datetime,
    days: int,
) -> Path:
    given = read_public_key(public_key) if public_key else None
    if given and (owner := record.owner(given)):
        raise ConfigError(
            f"{public_key}: this key is or was that of {owner}; a site needs a new one of its own"
        )
    with make_kit(folder, record, site, given) as (kit, public):
        until = (at + timedelta(days=days)).isoformat()
        key = SiteKey(public, fingerprint(public), at.isoformat(), until)
        write_record(folder.record, record.with_keys(site, [*earlier, key]))
    return kit

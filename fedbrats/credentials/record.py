"""`federation.json`: what a federation is called, and every key and certificate that it ever gave out, with dates.

Nothing in it is secret. It is only ever added to; a key that was revoked stays in it and is never taken again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fedbrats.config.targets import ConfigError
from fedbrats.files import read_json, write_json

FORM = 1  # raised when an older reader would take the file for something else


@dataclass(frozen=True)
class SiteKey:
    """A public key by which the server knows a site; dates are ISO 8601 with a time zone."""

    public: str  # in OpenSSH's format
    fingerprint: str  # as `ssh-keygen -l` prints it
    since: str
    until: str  # the record's own date: a key has none in itself
    revoked: str | None = None

    def holds(self, at: datetime) -> bool:
        """Whether the site is let in by this key at `at`."""
        return self.revoked is None and datetime.fromisoformat(self.until) > at


@dataclass(frozen=True)
class Issued:
    """A certificate that was made."""

    what: str  # authority | server
    fingerprint: str  # SHA-256
    since: str
    until: str


@dataclass(frozen=True)
class Federation:
    """The record."""

    name: str  # by which the sites call the server
    port: int
    names: list[str]  # DNS names and addresses that the server's certificate is for, `name` first
    certificates: list[Issued] = field(default_factory=list)
    sites: dict[str, list[SiteKey]] = field(default_factory=dict)  # keys of a site, oldest first

    def keys_at(self, at: datetime) -> list[tuple[str, str]]:
        """Site and public key of every key that holds at `at`, by site, then age. A site may have two for a while."""
        return [
            (site, key.public) for site in sorted(self.sites) for key in self.sites[site] if key.holds(at)
        ]

    def owner(self, public: str) -> str | None:
        """The site that ever had the key `public`."""
        return next((site for site, keys in self.sites.items() if public in [k.public for k in keys]), None)

    def with_keys(self, site: str, keys: list[SiteKey]) -> Federation:
        """The record with other keys of `site`."""
        return replace(self, sites={**self.sites, site: keys})

    def with_certificates(self, *more: Issued) -> Federation:
        """The record with further certificates."""
        return replace(self, certificates=[*self.certificates, *more])


def read_record(file: Path) -> Federation:
    """The record in `file`.

    Raises:
        ConfigError: it cannot be read or is no record; the message names it.
    """
    try:
        content = read_json(file)
        if content["form"] != FORM:
            raise ConfigError(f"{file}: form {content['form']!r}, this version of fedbrats reads {FORM}")
        return _record(content)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file}: not there; a federation is begun by `fedbrats federation init`"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: not the record of a federation ({error})") from error


def write_record(file: Path, record: Federation) -> None:
    """Replace the record in `file`."""
    write_json(file, {"form": FORM, **asdict(record)}, private=True)


def _record(content: dict[str, Any]) -> Federation:
    return Federation(
        content["name"],
        content["port"],
        content["names"],
        [Issued(**one) for one in content["certificates"]],
        {site: [SiteKey(**one) for one in keys] for site, keys in content["sites"].items()},
    )

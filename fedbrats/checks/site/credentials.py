"""The files by which a site and its server know each other."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding, reason_of
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import now, read_certificates
from fedbrats.credentials.keys import fingerprint, read_site_key
from fedbrats.data.sentences import plural

SECRET = "superexec.secret"  # in the storage of the site
SOON = 30  # days before the end of a certificate in which it is to be renewed


def check_key(key: str) -> Finding:
    """Whether the key of the site is of the kind that the server takes, and nobody else may read it."""
    if not key:
        said = "site.yaml names none: set key to the private key that the federation's operator enrolled."
        return Finding("key", FIX, said)
    try:
        public = read_site_key(Path(key))
    except ConfigError as error:
        return Finding("key", FIX, f"{_without(key, error)}.", key)
    facts = {"fingerprint": fingerprint(public)}
    return Finding("key", OK, f"{facts['fingerprint']}, and only its owner may read it", key, facts)


def check_secret(storage: str) -> Finding:
    """Whether nobody else may read the secret between Flower's processes on this machine, once there is one."""
    file = Path(storage) / SECRET
    try:
        mode = file.stat().st_mode & 0o777
    except (FileNotFoundError, NotADirectoryError):  # the storage itself is another check
        return Finding("secret", OK, "none yet, the first start makes it")
    except OSError as error:
        said = f"cannot be looked at: {reason_of(error)}. Let the user of fedbrats own it."
        return Finding("secret", FIX, said, str(file))
    facts = {"mode": f"{mode:04o}"}
    if mode & 0o077:
        said = f"has mode {mode:04o}, so others on this machine may take this site's tasks: chmod 600 it."
        return Finding("secret", FIX, said, str(file), facts)
    return Finding("secret", OK, "only its owner may read it", str(file), facts)


def _without(file: str, error: ConfigError) -> str:
    """What was said of `file`, without its place."""
    return str(error).removeprefix(f"{file}: ").replace(file, "it")


def check_authority(ca: str, at: datetime | None = None) -> Finding:
    """Whether the certificates of the federation's authority can be read, and one of them is valid (`at`, or now)."""
    if not ca:
        said = "site.yaml names none: set server.ca to the certificate that came with the key."
        return Finding("authority", FIX, said)
    try:
        certificates = read_certificates(Path(ca))
    except ConfigError as error:
        return Finding(
            "authority", FIX, f"{_without(ca, error)}: ask the federation's operator for ca.crt.", ca
        )
    at = at or now()
    first = min(certificate.not_valid_before_utc for certificate in certificates)
    last = max(certificate.not_valid_after_utc for certificate in certificates)
    facts = {"valid from": f"{first:%Y-%m-%d}", "valid until": f"{last:%Y-%m-%d}"}
    if at < first:
        said = f"is valid only from {first:%Y-%m-%d %H:%M} UTC on: set the clock of this machine, else ask for it anew."
        return Finding("authority", FIX, said, ca, facts)
    renew = "take ca.crt from the server anew (there: `fedbrats federation renew ca`)."
    if at > last:
        return Finding("authority", FIX, f"expired on {last:%Y-%m-%d}: {renew}", ca, facts)
    days = (last - at).days
    if days < SOON:
        said = f"expires in {plural(days, 'day')}, on {last:%Y-%m-%d}: {renew}"
        return Finding("authority", WARNING, said, ca, facts)
    return Finding("authority", OK, f"valid until {last:%Y-%m-%d}", ca, facts)

"""`federation`: authority, certificates and keys of a federation, kept at its server."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from shlex import quote

from rich.console import Console
from rich.table import Column, Table

from fedbrats.commands.federation.arguments import parser
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.credentials import expiry, renewing, sites
from fedbrats.credentials.certificates import fingerprint, now, read_certificates
from fedbrats.credentials.folder import AUTHORITY_DAYS, KEY_DAYS, SERVER_DAYS, Folder, begin
from fedbrats.data.sentences import plural

RENEW = "fedbrats federation renew"


def main(arguments: list[str]) -> int:
    """Do one part; 2 for what cannot be done, 1 where something has expired or a SuperLink was not told."""
    given = parser().parse_args(arguments)
    try:
        return int(PARTS[given.part](given, Folder(given.folder)))
    except (ConfigError, OSError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2


def _init(given: argparse.Namespace, folder: Folder) -> int:
    begin(folder.path, given.name, [*given.also, *given.ip], given.port, given.days)
    authority = read_certificates(folder.authority)[0]
    print(
        f"{folder.path}: the federation {given.name}; only you can read the folder, keep a copy of it offline"
    )
    print(f"authority, SHA-256 {fingerprint(authority)}")
    print("next: fedbrats federation enrol <site>")
    return _status(given, folder)


def _enrol(given: argparse.Namespace, folder: Folder) -> int:
    kit = sites.enrol(folder, given.site, given.public_key, given.again, given.days)
    print(f"{kit}: what {given.site} gets")
    if not given.public_key:
        print("its private key lies in there: hand it over by a safe way, then delete this copy")
    _tell(given, folder)
    return 0


def _revoke(given: argparse.Namespace, folder: Folder) -> int:
    held = sites.revoke(folder, given.site)
    print(f"{given.site}: revoked in the record" if held else f"{given.site}: no key of it held")
    return 0 if _tell(given, folder) else 1


def _tell(given: argparse.Namespace, folder: Folder) -> bool:
    """Have a running SuperLink let in the keys of the record and no others; whether it was told."""
    from fedbrats.engines.superlink.nodes import match_record  # takes a second to import

    try:
        changes = match_record(given.superlink, folder.authority, folder.read().keys_at(now()))
    except RuntimeError as error:
        print(
            shown(f"{error}; if it runs, it goes on as before until it is told or restarted"), file=sys.stderr
        )
        return False
    new = f", new: {', '.join(changes.registered)}" if changes.registered else ""
    gone = f", let in no more: {plural(changes.unregistered, 'key')}" if changes.unregistered else ""
    print(shown(f"SuperLink at {given.superlink}: lets in the keys of the record{new}{gone}"))
    for site in changes.refused:
        print(
            shown(f"{site}: its key was once let go of there and is never taken again: {RENEW} {quote(site)}")
        )
    return not changes.refused


def _renew(given: argparse.Namespace, folder: Folder) -> int:
    names = [*given.also, *given.ip]
    if given.what not in sites.PARTS:
        if names or given.new_key:
            raise ConfigError(
                f"--also, --ip and --new-key are for server or ca; {given.what} always gets a new key"
            )
        days = given.days or KEY_DAYS
        kit = sites.renew_key(folder, given.what, given.public_key, days, given.overlap)
        print(f"{kit}: what {given.what} gets; its old key holds for {given.overlap} more days at most")
        _tell(given, folder)
        return 0
    if given.public_key:
        raise ConfigError("--public-key is for a site")
    if given.what == "server":
        made = renewing.renew_server(folder, names, given.days or SERVER_DAYS, given.new_key)
        print(
            f"{folder.server}: valid until {made.not_valid_after_utc:%Y-%m-%d}; the server takes it when it restarts"
        )
        return 0
    if names:
        raise ConfigError(
            "--also and --ip are for the server's certificate: fedbrats federation renew server"
        )
    made = renewing.renew_authority(folder, given.days or AUTHORITY_DAYS, given.new_key)
    print(f"{folder.authority}: valid until {made.not_valid_after_utc:%Y-%m-%d}; hand it out to all sites")
    if given.new_key:
        print("once they all have it: fedbrats federation renew server")
    return 0


def _status(given: argparse.Namespace, folder: Folder) -> int:
    at = now()
    rows, faults = expiry.expiries(folder, at), expiry.faults(folder)
    console = Console(highlight=False)
    console.print(_table(rows, at))
    for row in rows:
        if row.fix:
            console.print(shown(f"{row.what}: {row.fix}"), markup=False, soft_wrap=True)
    for fault in faults:
        console.print(shown(fault), markup=False, soft_wrap=True)
    return 1 if faults or any(row.state == "expired" for row in rows) else 0


def _table(rows: list[expiry.Expiry], at: datetime) -> Table:
    table = Table("", Column("", overflow="fold"), "until (UTC)", "days left", "")
    for row in rows:
        left = "" if row.state == "revoked" else str(row.days(at))
        words = "expires soon" if row.state == "soon" else row.state
        cells = (row.what, row.detail, f"{row.until:%Y-%m-%d %H:%M}", left, words)
        table.add_row(*map(shown, cells))
    return table


PARTS = {"init": _init, "enrol": _enrol, "revoke": _revoke, "renew": _renew, "status": _status}

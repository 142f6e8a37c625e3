"""The words of `fedbrats federation`."""

from __future__ import annotations

import argparse
import re
from ipaddress import ip_address

from fedbrats.commands.words import path
from fedbrats.credentials.folder import AUTHORITY_DAYS, KEY_DAYS, SERVER_DAYS
from fedbrats.credentials.sites import OVERLAP_DAYS

SUPERLINK = "localhost:8000"
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    own = argparse.ArgumentParser(
        prog="fedbrats federation",
        description="Authority, certificates and keys of a federation, at its server.",
    )
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--folder", type=path, default=path("federation"), help="of the federation (./federation)"
    )
    told = argparse.ArgumentParser(add_help=False)
    told.add_argument("--superlink", default=SUPERLINK, help=f"running SuperLink to tell ({SUPERLINK})")
    parts = own.add_subparsers(dest="part", required=True, metavar="init|enrol|revoke|renew|status")

    init = parts.add_parser("init", parents=[folder], help="begin a federation")
    init.add_argument("--name", type=dns_name, required=True, help="DNS name by which sites call the server")
    init.add_argument("--port", type=port, default=8000, help="by which they reach it (8000)")
    init.add_argument(
        "--days", type=days, default=SERVER_DAYS, help=f"of the server's certificate ({SERVER_DAYS})"
    )
    _names(init)

    enrol = parts.add_parser("enrol", parents=[folder, told], help="let a site in, and make its kit")
    enrol.add_argument("site", help="name of the institution")
    enrol.add_argument("--public-key", type=path, help="of a key made at the site (fedbrats site key): safer")
    enrol.add_argument("--days", type=days, default=KEY_DAYS, help=f"that its key holds ({KEY_DAYS})")
    enrol.add_argument(
        "--again", action="store_true", help="the site was revoked, and comes back with a new key"
    )

    revoke = parts.add_parser("revoke", parents=[folder, told], help="let a site in no more")
    revoke.add_argument("site", help="name of the institution")

    renew = parts.add_parser(
        "renew", parents=[folder, told], help="another certificate, or another key of a site"
    )
    renew.add_argument("what", help="server, ca, or the name of a site")
    renew.add_argument(
        "--days", type=days, help=f"server {SERVER_DAYS}, ca {AUTHORITY_DAYS}, site {KEY_DAYS}"
    )
    renew.add_argument("--new-key", action="store_true", help="server, ca: make another private key, too")
    renew.add_argument("--public-key", type=path, help="site: of the key that it made itself")
    renew.add_argument(
        "--overlap",
        type=overlap,
        default=OVERLAP_DAYS,
        help=f"site: days that the old key still holds ({OVERLAP_DAYS})",
    )
    _names(renew)

    parts.add_parser("status", parents=[folder], help="what expires when; 1 if something has expired")
    return own


def _names(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--also", type=dns_name, action="append", default=[], help="another DNS name of the server"
    )
    command.add_argument(
        "--ip", type=address, action="append", default=[], help="an IP address of the server"
    )


def dns_name(text: str) -> str:
    """A DNS name, or a word of a private network such as `superlink`."""
    if not _NAME.fullmatch(text) or len(text) > 253 or re.fullmatch(r"[\d.]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no DNS name; addresses are given by --ip")
    return text.lower()


def address(text: str) -> str:
    """An IP address, of version 4 or 6."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address; names are given by --also") from None


def port(text: str) -> int:
    """A TCP port."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)


def overlap(text: str) -> int:
    """Whole days; 0 ends at once."""
    return 0 if text == "0" else days(text)


def days(text: str) -> int:
    """Whole days, at least one."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 36500:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days (1 to 36500)")
    return int(text)

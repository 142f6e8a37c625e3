"""Whether the server lets this site in, asked when it starts and every minute; the reason is one sentence.

Flower's SuperNode tries for ever where a certificate is wrong, and ends with a number where its key is.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.refusals import refusal
from fedbrats.engines.superlink.nodes import in_use, key_refusal
from fedbrats.engines.superlink.programs import SUPERNODE, Link

EVERY = 60.0  # seconds between two questions of a site that runs
CLOSING = 15.0  # seconds in which the SuperNode of a `site start` that was killed has ended, too
LEFT = 90.0  # seconds in which what a killed SuperNode left at the server is surely over; Flower takes 60

log = logging.getLogger(__name__)


def refused(site: SiteFile) -> str | None:
    """Why the server refuses this site, None if it does not or does not answer.

    What passes only when somebody does something: certificates, names, clocks, keys.
    """
    address, ca, key = site.server.address, Path(site.server.ca), Path(site.key)
    if said := refusal(address, ca, key, patient=True):
        return said
    try:
        return key_refusal(address, ca, key)
    except RuntimeError:
        return None
    except ConfigError as error:
        return str(error)


def watching(site: SiteFile, every: float = EVERY) -> Callable[[], None]:
    """What a site that runs does meanwhile: ask every so many seconds, and log a reason when it is new or gone."""
    said, due = [""], [time.monotonic()]

    def look() -> None:
        if time.monotonic() < due[0]:
            return
        now = refused(site) or ""
        due[0] = time.monotonic() + every
        if now != said[0]:
            log.warning("%s", now or f"{site.server.address} lets this site in again")
        said[0] = now

    return look


def only_one(site: SiteFile, link: Link, left: float = LEFT) -> Callable[[str], None]:
    """What a site does when a program of the given name has ended: see whether another process with its key runs.

    The server lets one in at a time, the first. One that was killed a moment ago keeps its own successor out, too.

    Raises:
        ConfigError: (what is returned) another one has been connected for longer than that, or the port between the
            site's programs is taken.
    """
    found: list[float] = []

    def ended(program: str) -> None:
        if program != SUPERNODE:
            return
        check_port(link, 0.0)
        if not in_use(site.server.address, Path(site.server.ca), Path(site.key)):
            found.clear()
            return
        at = time.monotonic()
        if found and at - found[-1] > LEFT:  # its successor was let in, and has ended now
            found.clear()
        found.append(at)
        said = (
            f"{site.server.address} is connected with the key of {site.name} already: end the other process, maybe on "
            "another machine with a copy of the kit (there: `fedbrats site stop`)"
        )
        if at - found[0] > left:
            raise ConfigError(said)
        log.warning("%s; if it was killed just now, this one is let in within a minute", said)

    return ended


def check_port(link: Link, patience: float = CLOSING) -> None:
    """See that nobody listens where the SuperNode is to listen, or its SuperExec would work for another one.

    Raises:
        ConfigError: somebody does, and still did `patience` seconds later.
    """
    end = time.monotonic() + patience
    while True:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((link.host, link.port))
                return
            except OSError as error:
                if time.monotonic() >= end:
                    raise ConfigError(
                        f"port {link.port} of {link.host}: {error.strerror}; if another site of this machine has it, "
                        "end that one, or give this one another by --port"
                    ) from error
        time.sleep(0.5)

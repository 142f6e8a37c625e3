"""Whether the server lets this site in, asked when it starts and every minute; the reason is one sentence.

Flower's SuperNode tries for ever where a certificate is wrong, and ends with a number where its key is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.refusals import refusal
from fedbrats.engines.superlink.nodes import key_refusal

EVERY = 60.0  # seconds between two questions of a site that runs

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

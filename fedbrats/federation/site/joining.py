"""How a site says who it is and what it holds."""

from __future__ import annotations

from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedbrats import __version__
from fedbrats.arrays import fingerprint
from fedbrats.federation.site.site import Site


def join(site: Site, content: RecordDict) -> dict[str, Any]:
    """Name, numbers of cases, and a hash of the arrays that the site would exchange."""
    cases = site.cases
    facts: dict[str, Any] = {
        "site": site.name,
        "train": len(cases.train),
        "val": len(cases.val),
        "test": len(cases.test),
        "arrays": fingerprint(site.parts.signature, site.parts.stays),
        "version": __version__,
    }
    return {"facts": ConfigRecord(facts)}

"""How a site says who it is and what it holds."""

from __future__ import annotations

from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedbrats.arrays import fingerprint
from fedbrats.config.versions import own_versions
from fedbrats.federation import arms
from fedbrats.federation.site.site import Site
from fedbrats.privacy.dp_sgd import DpSgd


def join(site: Site, content: RecordDict) -> dict[str, Any]:
    """Name, numbers of cases, a hash of the arrays that the site would exchange, and versions.

    A private site adds how many rounds of this run its ledger holds. Raises LedgerError: that cannot be trusted.
    """
    cases = site.cases
    facts: dict[str, Any] = {
        "site": site.name,
        "train": len(cases.train),
        "val": len(cases.val),
        "test": len(cases.test),
        "arrays": fingerprint(site.parts.signature, site.parts.stays),
        **own_versions(),
    }
    if cases.train and isinstance(site.parts.privacy, DpSgd) and site.name != arms.POOLED_SITE:
        facts["rounds"] = site.budget.rounds_counted()
    return {"facts": ConfigRecord(facts)}

"""What a site says of its privacy at the end of a run: what its ledger holds."""

from __future__ import annotations

import json
import time
from typing import Any

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.federation.site.site import Site
from fedbrats.files import finite


def spent(site: Site, content: RecordDict) -> dict[str, Any]:
    """The site's spending as JSON. Raises LedgerError: the ledger cannot be read."""
    started = time.perf_counter()
    values = json.dumps(finite(site.budget.summary()), allow_nan=False)
    metrics = MetricRecord({"seconds": time.perf_counter() - started})
    return {"spent": ConfigRecord({"values": values}), "metrics": metrics}

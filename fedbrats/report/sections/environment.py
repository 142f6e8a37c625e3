"""What the run can be repeated with."""

from __future__ import annotations

import yaml

from fedbrats.report.page import Section
from fedbrats.report.results import Results
from fedbrats.report.words import flat


def section(results: Results) -> Section:
    """Versions, hardware and the complete configuration."""
    run = results.run
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    context = {"pairs": flat(run.environment), "config": config}
    return Section("environment", "Environment", context, nav="Environment")

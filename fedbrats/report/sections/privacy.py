"""Differential privacy, and what was tried to break it."""

from __future__ import annotations

from fedbrats.report.page import Section, pictured
from fedbrats.report.results import Results
from fedbrats.report.sections.privacy_audit import audit_context
from fedbrats.report.sections.privacy_figures import privacy_context

FIGURES = ("epsilon", "norms", "central")


def section(results: Results) -> Section | None:
    """Budgets, curves and the audit; None for a run that has neither `privacy.json` nor an audit."""
    privacy, audit = results.privacy, audit_context(results.run.path)
    if privacy is None and audit is None:
        return None
    found = None if privacy is None else pictured(privacy_context(results.run, privacy), FIGURES)
    title = "Differential privacy" + ("" if privacy is None else f" of one {privacy.unit}")
    return Section("privacy", title, {"privacy": found, "audit": audit}, nav="Privacy")

"""Differential privacy, and what was tried to break it."""

from __future__ import annotations

from typing import Any

from fedbrats.report.cells import MISSING
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
    found = None if privacy is None else privacy_context(results.run, privacy)
    if results.public:
        found, audit = found and _released(found), audit and _without_words(audit)
    found = found and pictured(found, FIGURES)
    title = "Differential privacy" + ("" if privacy is None else f" of one {privacy.unit}")
    return Section("privacy", title, {"privacy": found, "audit": audit}, nav="Privacy")


def _released(found: dict[str, Any]) -> dict[str, Any]:
    """Without what is exact about gradients and updates: norms, how many were clipped and drawn."""
    central = {name: text for name, text in found["central"].items() if name != "Clipped updates"}
    figures = {name: figure for name, figure in found["figures"].items() if name == "epsilon"}
    return {**found, "steps": [], "central": central, "figures": figures}


def _without_words(audit: dict[str, Any]) -> dict[str, Any]:
    """What passed and what failed, without measurements on patients and pictures of them."""
    checks = [{**check, "measured": MISSING, "bound": MISSING, "says": ""} for check in audit["checks"]]
    canary = audit["canary"] and {**audit["canary"], "says": ""}
    return {**audit, "checks": checks, "canary": canary, "pictures": [], "says": ""}

"""The versions that server and sites must share, as they decide what a number means and what can be read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

COMPARED = ("fedbrats", "flwr", "torch")
SAME, ANY = "same", "any"  # what run.versions may say


def own_versions() -> dict[str, str]:
    """Of the packages installed here; of torch without its build (+cpu, +cu128), which may differ between sites."""
    return {name: version(name).partition("+")[0] for name in COMPARED}


def other_versions(theirs: Mapping[str, object], ours: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Of each package that differs its name, version there and version here; "unknown" where nothing is told."""
    told = {name: str(theirs.get(name) or "unknown").partition("+")[0] for name in ours}
    return [(name, told[name], here) for name, here in ours.items() if told[name] != here]

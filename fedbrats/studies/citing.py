"""The papers of what a run has used, as the docstrings of its parts name them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from hydra.utils import get_object

from fedbrats.config.names import shown

FLOOR = (
    "report.floor",
    "FLAIR threshold",
    "Challenging Current Semi-supervised Anomaly Segmentation Methods for Brain MRI, BrainLes 2021",
)
ALWAYS = (
    ("federation", "Flower: Beutel et al., arXiv 2007.14390, 2020"),
    ("medical imaging", "MONAI: Cardoso et al., arXiv 2211.02701, 2022"),
)
OWN = "fedbrats."  # only what belongs to this package is imported: a run folder may name anything
NO_PAPER = "no paper named"
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def papers(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Where in the configuration, the part, and what its docstring says of its source, in their order.

    Args:
        config: of a run, as its `config.yaml` has it; of other packages only the names are given.
    """
    found = [(key, target.rsplit(".", 1)[-1], _source(target)) for key, target in _targets(config)]
    if (config.get("report") or {}).get("floor") is not None:
        found.append(FLOOR)
    return [*dict.fromkeys(found), *((key, *text.split(": ", 1)) for key, text in ALWAYS)]  # type: ignore[list-item]


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys and targets, outer ones first."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield key, node["_target_"]
        for name, value in node.items():
            yield from _targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, key)


def _source(target: str) -> str:
    """The paragraphs of its docstring, or of its file's, that name a year."""
    if not target.startswith(OWN):
        return f"of {shown(target.split('.')[0])}"
    try:
        part = get_object(target)
        texts = [inspect.getdoc(part) or "", inspect.getdoc(import_module(part.__module__)) or ""]
    except Exception:  # of another version
        return NO_PAPER
    for text in texts:
        if dated := [" ".join(p.split()) for p in text.split("\n\n") if _YEAR.search(p)]:
            return " ".join(dated)
    return NO_PAPER

"""Histograms of a site's patients, in bins that are the same for everybody and know nothing of the data.

A patient counts once in each: with the first of several scans, in the order of the site's list. So one patient more or
less changes each histogram by one, and all of them by `HISTOGRAMS` together.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.regions import ED, ET, NCR, REGIONS

ABSENT = "none"  # of a region or class
VOLUMES = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # mL, above 0
SPACINGS = (0.0, 0.75, 1.25, 2.0, 3.5, 5.5)  # mm, the largest of the three
SHAPES = (0, 97, 129, 161, 193, 241, 321, 449)  # voxels, the longest side of the volume
# Mean of the brain, in the numbers of the file.
INTENSITIES = (-math.inf, 0.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
LABELS = {"NCR": NCR, "ED": ED, "ET": ET}

Value = Callable[[dict[str, Any]], float | None]  # of a case's meta.json; None is not there


def _histograms() -> dict[str, tuple[tuple[float, ...], Value]]:
    found: dict[str, tuple[tuple[float, ...], Value]] = {
        "spacing, mm": (SPACINGS, lambda meta: max(meta["spacing"])),
        "longest side, voxels": (SHAPES, lambda meta: max(meta["full_shape"])),
    }
    for region in REGIONS:
        found[f"{region}, mL"] = (VOLUMES, lambda meta, r=region: meta["volumes_ml"][r] or None)  # type: ignore[misc]
    for name, label in LABELS.items():
        found[f"{name} labelled"] = ((0.0,), lambda meta, v=label: 1.0 if v in meta["labels"] else None)  # type: ignore[misc]
    for name in MODALITIES:
        found[f"{name}, raw mean"] = (INTENSITIES, lambda meta, m=name: meta["intensity"][m]["mean"])  # type: ignore[misc]
    return found


BY_NAME = _histograms()
HISTOGRAMS = len(BY_NAME)


def bins_of(name: str) -> list[str]:
    """Names of the bins of a histogram, in the order of its counts."""
    edges, _ = BY_NAME[name]
    ends = [*edges[1:], math.inf]
    if len(edges) == 1:
        return [ABSENT, "there"]
    return [ABSENT, *(f"{low:g} to {high:g}" for low, high in zip(edges, ends, strict=True))]


def counted(patients: Sequence[Sequence[CachedCase]]) -> dict[str, list[int]]:
    """Patients by bin of every histogram; `patients`: the cases of each."""
    metas = [cases[0].meta for cases in patients if cases]
    found = {}
    for name, (edges, value) in BY_NAME.items():
        counts = [0] * (len(edges) + 1)
        for meta in metas:
            seen = value(meta)
            counts[0 if seen is None else bisect_right(edges, seen)] += 1
        found[name] = counts
    return found


def noised(counts: Sequence[int], epsilon: float, uniform: Callable[[int], Any]) -> list[int]:
    """Counts with two-sided geometric noise (Ghosh et al., STOC 2009), none below 0.

    Args:
        counts: of one histogram.
        epsilon: of all `HISTOGRAMS` together; each gets an equal share of it.
        uniform: so many numbers in [0, 1) that nobody can guess.
    """
    rate = epsilon / HISTOGRAMS  # P(noise = k) is proportional to exp(-rate |k|)
    drawn = [math.floor(math.log1p(-float(u)) / -rate) for u in uniform(2 * len(counts))]
    return [max(0, n + up - down) for n, up, down in zip(counts, drawn[::2], drawn[1::2], strict=True)]


def with_least(counts: Sequence[int], least: int) -> list[int]:
    """Counts of fewer than `least` patients as 0."""
    return [n if n >= least else 0 for n in counts]


def apart(one: Sequence[int], other: Sequence[int]) -> float:
    """Total variation distance of two histograms, 0 to 1: the share of patients that would have to change bins.

    Both histograms have the same bins and count at least one patient.
    """
    here, there = sum(one), sum(other)
    return sum(abs(a / here - b / there) for a, b in zip(one, other, strict=True)) / 2

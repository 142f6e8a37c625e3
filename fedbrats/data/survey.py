"""Histograms of a site's patients, in bins that are the same for everybody and know nothing of the data.

A patient counts once in each: with the first of several scans, in the order of the site's list. So one patient more or
less changes each histogram by one, and all of them by as many as there are together.

`BY_NAME` is what every survey asks; `FOR_PLAN` is asked beside it where a network is planned from the answers
(`model.plan=federated`), of the patients of training and validation.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
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
AXES = ("x", "y", "z")
# mm; each has a bin that ends half-way to its neighbours, so that what scanners are set to is told as it is.
SPACING = (
    *(round(0.1 * i, 1) for i in range(2, 21)),
    *(2 + 0.25 * i for i in range(1, 13)),
    *(5 + 0.5 * i for i in range(1, 11)),
)
SIDES = tuple(range(0, 513, 8))  # voxels
SHARES = (0.0, 0.25, 0.5, 0.75)

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


def _for_plan() -> dict[str, tuple[tuple[float, ...], Value]]:
    between = tuple((a + b) / 2 for a, b in pairwise(SPACING))
    found: dict[str, tuple[tuple[float, ...], Value]] = {}
    for i, axis in enumerate(AXES):
        found[spacing_along(axis)] = ((0.0, *between), lambda meta, a=i: meta["spacing"][a])  # type: ignore[misc]
        found[side_along(axis)] = (SIDES, lambda meta, a=i: _sides(meta)[a])  # type: ignore[misc]
    found[BOX] = (SHARES, lambda meta: math.prod(_sides(meta)) / math.prod(meta["full_shape"]))
    return found


def spacing_along(axis: str) -> str:
    """The histogram of the spacings along one of `AXES`."""
    return f"spacing along {axis}, mm"


def side_along(axis: str) -> str:
    """The histogram of the sides of the box around the brain along one of `AXES`."""
    return f"brain along {axis}, voxels"


def _sides(meta: dict[str, Any]) -> list[int]:
    return [high - low for low, high in meta["crop"]]


BOX = "box around the brain, share of the volume"
BY_NAME = _histograms()
FOR_PLAN = _for_plan()
HISTOGRAMS = len(BY_NAME)
ALL = BY_NAME | FOR_PLAN


def asked(planned: bool) -> tuple[str, ...]:
    """Names of the histograms that a survey asks for, those of a plan among them where it is to be made."""
    return tuple(ALL if planned else BY_NAME)


def bins_of(name: str) -> list[str]:
    """Names of the bins of a histogram, in the order of its counts."""
    edges, _ = ALL[name]
    ends = [*edges[1:], math.inf]
    if len(edges) == 1:
        return [ABSENT, "there"]
    return [ABSENT, *(f"{low:g} to {high:g}" for low, high in zip(edges, ends, strict=True))]


def counted(
    patients: Sequence[Sequence[CachedCase]], names: Iterable[str] = tuple(BY_NAME)
) -> dict[str, list[int]]:
    """Patients by bin of every histogram of `names`; `patients`: the cases of each."""
    metas = [cases[0].meta for cases in patients if cases]
    found = {}
    for name in names:
        edges, value = ALL[name]
        counts = [0] * (len(edges) + 1)
        for meta in metas:
            seen = value(meta)
            counts[0 if seen is None else bisect_right(edges, seen)] += 1
        found[name] = counts
    return found


def noised(
    counts: Sequence[int], epsilon: float, uniform: Callable[[int], Any], histograms: int = HISTOGRAMS
) -> list[int]:
    """Counts with two-sided geometric noise (Ghosh et al., STOC 2009), none below 0.

    Args:
        counts: of one histogram.
        epsilon: of all histograms together; each gets an equal share of it.
        uniform: so many numbers in [0, 1) that nobody can guess.
        histograms: how many there are.
    """
    rate = epsilon / histograms  # P(noise = k) is proportional to exp(-rate |k|)
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

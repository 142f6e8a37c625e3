"""What nnU-Net's rules want to know of a data set, from the histograms of its sites and from nothing else.

nnU-Net calls it the fingerprint and lists every case in it. Here sites tell how many of their patients fall into which
bin (`survey.py`); the histograms are added, and median and percentile are those of the sum. A mean of the sites'
medians would be another number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedbrats.data.survey import AXES, BOX, FOR_PLAN, SHARES, SIDES, SPACING, side_along, spacing_along

THIN = 10  # percentile of the spacings that nnU-Net takes along a thick axis
MOST = 10_000_000  # patients
LARGEST = 4096  # voxels or mm, more than anything in a volume


@dataclass(frozen=True)
class Fingerprint:
    """Of the patients that train and validate at all sites; along the axes x, y and z.

    spacing: median, mm; thin: 10th percentile, mm. Both are values of `survey.SPACING`, the nearest to what is in the
    files: 0.05 mm away at most up to 2 mm, 0.25 mm above. shape: median of the sides of the box around the brain in
    voxels, linear within a bin of 8. box: median share of the volume in that box, the middle of one of four bins.
    alike: share of the patients whose spacing is the median, along the axis where fewest have it.
    """

    patients: int
    spacing: tuple[float, float, float]
    thin: tuple[float, float, float]
    shape: tuple[int, int, int]
    box: float
    alike: float

    def text(self) -> str:
        """As JSON, to travel."""
        return json.dumps(asdict(self), sort_keys=True)


def fingerprint_of(told: Mapping[str, Mapping[str, Sequence[int]]]) -> Fingerprint:
    """The fingerprint of what sites have told, counts by histogram by site.

    Raises:
        ValueError: a histogram in which nobody is left; the message names it.
    """
    merged = {}
    for name in FOR_PLAN:
        merged[name] = np.array([list(counts[name]) for counts in told.values()], np.int64).sum(axis=0)[1:]
        if merged[name].sum() == 0:
            raise ValueError(f"no count of {name!r} is large enough to be told")
    spacings = [merged[spacing_along(axis)] for axis in AXES]
    median, thin = ([_percentile(counts, SPACING, q) for counts in spacings] for q in (50, THIN))
    middles = [(low + high) / 2 for low, high in zip(SHARES, (*SHARES[1:], 1.0))]
    same = [_at(counts, value) / counts.sum() for counts, value in zip(spacings, median)]
    return Fingerprint(
        patients=int(merged[BOX].sum()),
        spacing=(median[0], median[1], median[2]),
        thin=(thin[0], thin[1], thin[2]),
        shape=tuple(_median_side(merged[side_along(axis)]) for axis in AXES),  # type: ignore[arg-type]
        box=_percentile(merged[BOX], middles, 50),
        alike=round(float(min(same)), 4),
    )


def read_fingerprint(text: Any) -> Fingerprint:
    """A fingerprint that came from elsewhere, checked.

    Raises:
        ValueError: it is none, or holds what no volume can have.
    """
    if not isinstance(text, str) or len(text) > 2000:
        raise ValueError("a fingerprint is a short text")
    try:
        found = json.loads(text)
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        told = Fingerprint(**values)
    except (TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError("no fingerprint") from error
    numbers = [*_three(told.spacing, float), *_three(told.thin, float), *_three(told.shape, int)]
    shares = [told.box, told.alike]
    if not all(0 < n <= LARGEST for n in numbers) or not all(
        type(n) is float and 0 <= n <= 1 for n in shares
    ):
        raise ValueError("a fingerprint with numbers that no volume has")
    if type(told.patients) is not int or not 1 <= told.patients <= MOST:
        raise ValueError(f"a fingerprint of {str(told.patients)[:20]} patients")
    return told


def _three(values: Any, kind: type) -> list[Any]:
    if not isinstance(values, tuple) or len(values) != 3 or not all(type(value) is kind for value in values):
        raise ValueError(f"no three numbers ({kind.__name__}) for the axes")
    return list(values)


def _percentile(counts: np.ndarray, values: Sequence[float], q: float) -> float:
    """Of a patient for each count with the value of its bin, linear between neighbours as nnU-Net's."""
    ends = np.cumsum(counts)
    place = q / 100 * (ends[-1] - 1)
    below, above = (
        values[int(np.searchsorted(ends, step, side="right"))]
        for step in (math.floor(place), math.ceil(place))
    )
    return float(below + (above - below) * (place % 1))


def _at(counts: np.ndarray, value: float) -> int:
    return int(sum(n for n, known in zip(counts, SPACING, strict=True) if known == value))


def _median_side(counts: np.ndarray) -> int:
    """The median in voxels, patients spread evenly over the sides of their bin; the last bin has no end."""
    edges = [*SIDES, SIDES[-1]]
    middle = counts.sum() / 2
    place = int(np.searchsorted(np.cumsum(counts), middle))
    before = counts[:place].sum()
    within = (edges[place + 1] - edges[place]) * (middle - before) / counts[place]
    return int(edges[place] + within)

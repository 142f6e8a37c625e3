"""What is known of a data set from merged histograms, against NumPy on the patients themselves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest

from fedbrats.data.fingerprint import fingerprint_of, read_fingerprint
from fedbrats.data.survey import BOX, FOR_PLAN, SIDES, SPACING, bins_of, counted, side_along, spacing_along

Counts = dict[str, list[int]]


@dataclass
class Scan:
    meta: dict[str, Any]


def told(spacings: Any, shapes: Any, full: Any = (240, 240, 155)) -> Counts:
    """The histograms of a site with such patients."""
    scans = [
        [Scan({"spacing": list(s), "crop": [[5, 5 + n] for n in shape], "full_shape": list(full)})]
        for s, shape in zip(spacings, shapes, strict=True)
    ]
    return counted(scans, FOR_PLAN)  # type: ignore[arg-type]


def patients(seed: int, n: int, size: int = 140) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    spacing = np.stack(
        [rng.choice(SPACING[5:12], n), rng.choice(SPACING[5:12], n), rng.choice(SPACING[12:], n)], 1
    )
    return spacing, rng.integers(size - 20, size + 20, (n, 3))


def test_bins_hold_what_scanners_are_set_to() -> None:
    """1 mm between 0.95 and 1.05; a patient of each nominal spacing has a bin of its own."""
    found = told([(s, s, s) for s in SPACING], [(1, 9, 511)] * len(SPACING))
    assert found[spacing_along("x")] == [0] + [1] * len(SPACING)
    assert "0.95 to 1.05" in bins_of(spacing_along("x"))
    assert (
        found[side_along("x")][1] == found[side_along("y")][2] == found[side_along("z")][-2] == len(SPACING)
    )
    assert found[BOX] == [0, len(SPACING), 0, 0, 0]


def test_median_and_percentile_are_those_of_all_patients_together() -> None:
    """Spacings fall on the middle of their bins, so nothing is lost; sides are known to 8 voxels."""
    of = {"A": patients(0, 5, 100), "B": patients(1, 40), "C": patients(2, 30, 160)}
    found = fingerprint_of({site: told(*told_of) for site, told_of in of.items()})
    spacings = np.concatenate([s for s, _ in of.values()])
    shapes = np.concatenate([s for _, s in of.values()])
    assert found.patients == 75
    assert found.spacing == pytest.approx(np.percentile(spacings, 50, axis=0))
    assert found.thin == pytest.approx(np.percentile(spacings, 10, axis=0))
    assert np.abs(np.array(found.shape) - np.median(shapes, axis=0)).max() < 8
    of_means = np.mean([np.median(s, axis=0) for s, _ in of.values()], axis=0)
    assert np.abs(of_means - np.median(spacings, axis=0)).max() > 0.05  # what the public attempt would send
    same = [(spacings[:, a] == m).mean() for a, m in enumerate(np.median(spacings, axis=0))]
    assert found.alike == pytest.approx(min(same), abs=1e-4)


def test_an_even_number_of_patients_has_a_median_between_two() -> None:
    found = fingerprint_of({"A": told([(1, 1, 1), (1, 1, 2)], [(60, 60, 60)] * 2)})
    assert found.spacing == (1.0, 1.0, 1.5)
    assert found.thin == pytest.approx((1.0, 1.0, 1.1))
    assert found.alike == 0


def test_a_side_lies_within_its_bin_as_far_as_half_of_the_patients() -> None:
    """Three of four patients at 64 to 71 voxels, one at 72 to 79: the second of them is two thirds on."""
    found = fingerprint_of({"A": told([(1, 1, 1)] * 4, [(64, 64, 64)] * 3 + [(79, 79, 79)])})
    assert found.shape == (64 + int(8 * 2 / 3),) * 3
    beyond = fingerprint_of({"A": told([(1, 1, 1)], [(600, 600, 600)], (700, 700, 700))})
    assert beyond.shape == (SIDES[-1],) * 3


def test_the_box_is_told_by_quarters() -> None:
    """140 x 171 x 137 of 240 x 240 x 155 voxels are 0.37."""
    assert fingerprint_of({"A": told([(1, 1, 1)], [(140, 171, 137)])}).box == 0.375
    assert fingerprint_of({"A": told([(1, 1, 1)], [(240, 240, 155)])}).box == 0.875


def test_where_nothing_is_told_nothing_is_known() -> None:
    some = told([(1, 1, 1)] * 3, [(60, 60, 60)] * 3)
    assert fingerprint_of({"A": some, "B": {name: [0] * len(c) for name, c in some.items()}}).patients == 3
    name = side_along("y")
    with pytest.raises(ValueError, match=f"no count of '{name}'"):
        fingerprint_of({"A": {**some, name: [0] * len(some[name])}})


FOUND = fingerprint_of({"A": told(*patients(0, 9))})


def test_a_fingerprint_travels_unchanged() -> None:
    assert read_fingerprint(FOUND.text()) == FOUND


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "[1]",
        "{}",
        "[" * 3000,
        "[" * 900,
        {**asdict(FOUND), "more": 1},
        {**asdict(FOUND), "spacing": [1.0, 1.0]},
        {**asdict(FOUND), "spacing": [1.0, 1.0, float("nan")]},
        {**asdict(FOUND), "spacing": [1.0, 1.0, -1.0]},
        {**asdict(FOUND), "thin": "abc"},
        {**asdict(FOUND), "shape": [10.5, 10, 10]},
        {**asdict(FOUND), "shape": [10, 10, 10**6]},
        {**asdict(FOUND), "shape": [True, 10, 10]},
        {**asdict(FOUND), "patients": 0},
        {**asdict(FOUND), "patients": 10**9},
        {**asdict(FOUND), "box": 1.5},
    ],
)
def test_what_no_volume_has_is_no_fingerprint(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"fingerprint|three numbers"):
        read_fingerprint(json.dumps(bad) if isinstance(bad, dict) else bad)

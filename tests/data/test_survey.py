"""Histograms of patients by hand, and their noise against its own formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedbrats.data.survey import (
    BY_NAME,
    FOR_PLAN,
    HISTOGRAMS,
    apart,
    asked,
    bins_of,
    counted,
    noised,
    with_least,
)


@dataclass
class Scan:
    meta: dict[str, Any]


def scan(
    et: float = 1.0, spacing: float = 1.0, labels: tuple[int, ...] = (0, 1, 2, 3), mean: float = 50.0
) -> Scan:
    return Scan(
        {
            "spacing": [0.9, spacing, 1.0],
            "full_shape": [240, 240, 155],
            "volumes_ml": {"WT": 40.0, "TC": 10.0, "ET": et},
            "labels": list(labels),
            "intensity": {name: {"mean": mean, "std": 1.0} for name in ("t1", "t1ce", "t2", "flair")},
        }
    )


def test_every_patient_counts_once_by_the_first_scan() -> None:
    patients = [[scan(), scan(et=200.0)], [scan(et=0.0, labels=(0, 1, 2))], [scan(et=0.29, spacing=5.0)], []]
    found = counted(patients)  # type: ignore[arg-type]
    assert {sum(counts) for counts in found.values()} == {3}
    assert dict(zip(bins_of("ET, mL"), found["ET, mL"])) == {
        **dict.fromkeys(bins_of("ET, mL"), 0),
        "none": 1,
        "0 to 0.3": 1,
        "1 to 3": 1,
    }
    assert dict(zip(bins_of("TC, mL"), found["TC, mL"]))["10 to 30"] == 3
    assert found["ET labelled"] == [1, 2]
    assert found["NCR labelled"] == [0, 3]
    assert dict(zip(bins_of("spacing, mm"), found["spacing, mm"])) == {
        **dict.fromkeys(bins_of("spacing, mm"), 0),
        "0.75 to 1.25": 2,
        "3.5 to 5.5": 1,
    }
    assert dict(zip(bins_of("longest side, voxels"), found["longest side, voxels"]))["193 to 241"] == 3
    assert dict(zip(bins_of("t2, raw mean"), found["t2, raw mean"]))["30 to 100"] == 3


def test_a_scanner_with_a_negative_mean_has_a_bin_too() -> None:
    found = counted([[scan(mean=-5.0)]])  # type: ignore[list-item]
    assert dict(zip(bins_of("t1, raw mean"), found["t1, raw mean"]))["-inf to 0"] == 1


def test_bins_and_counts_belong_together() -> None:
    found = counted([])
    assert all(len(found[name]) == len(bins_of(name)) for name in BY_NAME)
    assert (HISTOGRAMS, len(BY_NAME)) == (12, 12)


@pytest.mark.parametrize("epsilon", [1.2, 12.0, 60.0])
def test_the_noise_is_two_sided_geometric_with_a_share_of_epsilon(epsilon: float) -> None:
    """P(noise = k) = (1 - a) / (1 + a) a^|k| with a = exp(-epsilon / 12)."""
    rng = np.random.default_rng(0)
    drawn = np.array(noised([1000] * 200_000, epsilon, rng.random)) - 1000
    a = math.exp(-epsilon / 12)
    for k in (-2, -1, 0, 1, 2):
        assert np.mean(drawn == k) == pytest.approx((1 - a) / (1 + a) * a ** abs(k), abs=0.005), k
    assert drawn.std() == pytest.approx(math.sqrt(2 * a) / (1 - a), rel=0.02)
    assert min(noised([0] * 1000, 1.0, rng.random)) == 0


def test_more_histograms_share_the_same_epsilon() -> None:
    """With 19 of them each has 19/12 of the noise: a = exp(-epsilon / 19)."""
    rng = np.random.default_rng(0)
    drawn = np.array(noised([1000] * 100_000, 12.0, rng.random, 19)) - 1000
    a = math.exp(-12 / 19)
    assert drawn.std() == pytest.approx(math.sqrt(2 * a) / (1 - a), rel=0.02)


def test_a_plan_asks_for_seven_more() -> None:
    assert asked(False) == tuple(BY_NAME)
    assert (len(asked(True)), set(asked(True)) - set(asked(False))) == (19, set(FOR_PLAN))


def test_few_patients_are_told_as_none() -> None:
    assert with_least([0, 1, 2, 3, 4], 3) == [0, 0, 0, 3, 4]


def test_distance_by_hand() -> None:
    assert apart([1, 1], [2, 2]) == 0
    assert apart([5, 0], [0, 3]) == 1
    assert apart([3, 1], [1, 1]) == pytest.approx(0.25)

"""Minimum volume: what is emptied, what the voxels become, and the fitted threshold."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.postprocess.fitting import Predicted
from fedbrats.postprocess.minimum_volume import MinimumVolume
from tests.postprocess.toy_cases import CUBIC, case, et, line, sure

MIXED = line(0, 1, 2, 3, 3)


@pytest.mark.parametrize(
    ("region", "after"),
    [("ET", line(0, 1, 2, 1, 1)), ("TC", line(0, 2, 2, 2, 2)), ("WT", line(0, 0, 0, 0, 0))],
)
def test_the_larger_regions_stay(region: str, after: np.ndarray) -> None:
    found = MinimumVolume(region, voxels=5).apply(Predicted(MIXED, sure(MIXED), CUBIC))
    assert found.dtype == np.uint8
    assert np.array_equal(found, after)
    assert MIXED[3, 0, 0] == 3  # the input is left alone


def test_just_as_large_as_the_threshold_stays() -> None:
    for step, spacing in ((MinimumVolume(voxels=2), (1, 1, 1)), (MinimumVolume(ml=2.0), CUBIC)):
        assert np.array_equal(step.apply(Predicted(MIXED, sure(MIXED), spacing)), MIXED)
    assert not (MinimumVolume(voxels=3).apply(Predicted(MIXED, sure(MIXED), (1, 1, 1))) == 3).any()


def test_millilitres_follow_the_spacing() -> None:
    step = MinimumVolume(ml=0.5)  # two voxels of 0.2 mL are too little, two of 0.3 mL are not
    assert not (step.apply(Predicted(MIXED, sure(MIXED), (10, 10, 2))) == 3).any()
    assert (step.apply(Predicted(MIXED, sure(MIXED), (10, 10, 3))) == 3).sum() == 2


def test_fitted_threshold_is_the_smallest_of_the_best() -> None:
    """False ET of 1 and 3 voxels, true ET of 6 (all hit) and of 2 (half hit, Dice 2 * 1 / (2 + 2)).

    t = 0: (0 + 0 + 1 + 0.5) / 4; t = 2: (1 + 0 + 1 + 0.5) / 4; t = 3: (1 + 0 + 1 + 0) / 4; t = 4: (1 + 1 + 1 + 0) / 4;
    t = 7: 2 / 4. So t = 4 wins with 0.75, the least that empties three voxels.
    """
    cases = [
        case(et(1), et(0)),
        case(et(3), et(0)),
        case(et(6), et(6)),
        case(et(2), line(3, 2, 3, *[2] * 7)),
    ]
    assert MinimumVolume("ET").fit(iter(cases)) == {"ml": 4.0}


def test_a_threshold_without_effect_is_zero() -> None:
    assert MinimumVolume("ET").fit([case(et(3), et(3)), case(et(0), et(0))]) == {"ml": 0.0}
    # Nothing is gained by losing one case for another.
    assert MinimumVolume("ET").fit([case(et(1), et(1)), case(et(1), et(0))]) == {"ml": 0.0}


def test_fit_reads_its_own_region() -> None:
    cases = [case(et(1, ncr=1), line(*[2] * 10)), case(et(5, ncr=4), et(5, ncr=4))]
    assert MinimumVolume("TC").fit(cases) == {"ml": 3.0}
    assert MinimumVolume("WT").fit(cases) == {"ml": 0.0}


def test_names_and_parameters() -> None:
    step = MinimumVolume("ET")
    assert (step.fitted, step.name) == (False, "ET minimum volume, to be fitted")
    ready = step.with_parameters({"ml": 0.6})
    assert (ready.fitted, ready.name) == (True, "ET minimum 0.6 mL")
    assert MinimumVolume("TC", voxels=600).name == "TC minimum 600 voxels"
    with pytest.raises(ValueError, match="ncr is not fitted here; its parameters to fit: ml"):
        step.with_parameters({"ncr": 0.5})
    with pytest.raises(ValueError, match="ml=-1"):
        step.with_parameters({"ml": -1.0})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"region": "NCR"}, "region=NCR: choose one of WT, TC, ET"),
        ({"ml": 1.0, "voxels": 5}, "exclude each other"),
        ({"voxels": -1}, "voxels=-1"),
        ({"ml": float("nan")}, "ml=nan"),
    ],
)
def test_bad_settings(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MinimumVolume(**settings)


def test_nothing_to_fit_on() -> None:
    with pytest.raises(ValueError, match="no validation case"):
        MinimumVolume("ET").fit([])
    with pytest.raises(ValueError, match="has not been fitted"):
        MinimumVolume("ET").apply(Predicted(MIXED, sure(MIXED), CUBIC))

"""Labels to regions and back, against the definitions written out by hand."""

import json

import numpy as np
import pytest

from fedbrats.data.family_table import BRATS_2017, BRATS_2023, BRATS_2024, MSD, PED_2024
from fedbrats.data.regions import (
    REGIONS,
    LabelSystem,
    label_numbers,
    labels_from_regions,
    regions_from_labels,
    to_canonical,
    to_source,
)


def test_region_order_is_wt_tc_et() -> None:
    assert REGIONS == ("WT", "TC", "ET")


def test_regions_of_each_label() -> None:
    # background, NCR, ED, ET
    regions = regions_from_labels(np.array([0, 1, 2, 3], np.uint8))
    assert regions.dtype == bool
    assert regions.astype(int).tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("wt", "tc", "et", "label"),
    [
        (0, 0, 0, 0),
        (1, 1, 1, 3),
        (1, 0, 1, 3),
        (0, 1, 1, 3),
        (0, 0, 1, 0),
        (1, 1, 0, 1),
        (0, 1, 0, 1),
        (1, 0, 0, 2),
    ],
)
def test_merge_rule_row_by_row(wt: int, tc: int, et: int, label: int) -> None:
    merged = labels_from_regions(np.array([[wt], [tc], [et]], bool))
    assert merged.dtype == np.uint8
    assert merged.tolist() == [label]


def test_merge_undoes_regions() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    assert np.array_equal(labels_from_regions(regions_from_labels(labels)), labels)


def test_merge_refuses_a_wrong_number_of_channels() -> None:
    with pytest.raises(ValueError, match="region channels"):
        labels_from_regions(np.zeros((4, 2, 2, 2), bool))


@pytest.mark.parametrize(
    ("system", "numbers", "canonical"),
    [
        (BRATS_2017, [0, 1, 2, 4], [0, 1, 2, 3]),
        (BRATS_2023, [0, 1, 2, 3], [0, 1, 2, 3]),
        (BRATS_2024, [0, 1, 2, 3, 4], [0, 1, 2, 3, 0]),
        (MSD, [0, 1, 2, 3], [0, 2, 1, 3]),  # MSD: 1 oedema, 2 non-enhancing, 3 enhancing
        (PED_2024, [0, 1, 2, 3, 4], [0, 3, 1, 1, 2]),  # 1 enhancing, 2 non-enhancing, 3 cyst, 4 oedema
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_numbers_of_every_system(system, numbers, canonical, dtype) -> None:
    read = to_canonical(np.array(numbers, dtype), system)
    assert read.dtype == np.uint8
    assert read.tolist() == canonical
    assert to_source(np.array([0, 1, 2, 3]), system).tolist() == [0, system.ncr, system.ed, system.et]


def test_unexpected_labels_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[3, 7\].*brats2017-2021"):
        to_canonical(np.array([0, 3, 7]), BRATS_2017)
    with pytest.raises(ValueError, match=r"\[4\]"):
        to_source(np.array([0, 4], np.uint8), BRATS_2017)


def test_labels_that_scaling_has_moved_are_whole_numbers() -> None:
    """4 times 0.99999994 in float32 is 3.9999998."""
    moved = np.array([0, 1, 2, 4], np.float32) * np.float32(0.99999994)
    assert moved[3] != 4
    assert label_numbers(moved) == {0, 1, 2, 4}
    assert to_canonical(moved, BRATS_2017).tolist() == [0, 1, 2, 3]
    assert label_numbers(np.array([3.9991, 1.0009, -0.0009])) == {0, 1, 4}
    with pytest.raises(ValueError, match=r"found 3\.998$"):  # as it is, not rounded to the number it is not
        label_numbers(np.array([3.998, 4]))
    with pytest.raises(ValueError, match=r"found 3\.99890018"):
        label_numbers(np.array([3.9989001751], np.float64))


@pytest.mark.parametrize("system", [BRATS_2017, BRATS_2024, PED_2024])
def test_a_system_as_json_and_back(system: LabelSystem) -> None:
    assert LabelSystem.from_json(json.loads(json.dumps(system.to_json()))) == system
    assert ("also_ncr" in system.to_json()) == bool(system.also_ncr)  # keys of older caches have none


@pytest.mark.parametrize("value", [0.5, np.nan, -1.0, 300.0])
def test_labels_that_are_no_labels_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        label_numbers(np.array([0.0, value]))

"""Largest component and small components: 26 neighbours, what removed voxels become, ties."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.postprocess.fitting import Predicted
from fedbrats.postprocess.largest_component import LargestComponent
from fedbrats.postprocess.small_components import SmallComponents
from tests.postprocess.toy_cases import CUBIC, line, sure

PIECES = line(2, 0, 2, 3, 1, 0, 3, 2)  # WT in pieces of 1, 3 and 2 voxels


def apply(step: LargestComponent | SmallComponents, labels: np.ndarray) -> list[int]:
    return step.apply(Predicted(labels, sure(labels), CUBIC)).ravel().tolist()


def test_only_the_largest_stays() -> None:
    assert apply(LargestComponent("WT"), PIECES) == [0, 0, 2, 3, 1, 0, 0, 0]
    assert apply(LargestComponent("TC"), PIECES) == [2, 0, 2, 3, 1, 0, 2, 2]
    assert apply(LargestComponent("ET"), PIECES) == [
        2,
        0,
        2,
        3,
        1,
        0,
        1,
        2,
    ]  # one voxel each: the first stays


def test_corners_touch() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 2
    step = LargestComponent("WT")
    assert np.array_equal(step.apply(Predicted(labels, sure(labels), CUBIC)), labels)
    labels[1, 1, 1] = 0
    assert step.apply(Predicted(labels, sure(labels), CUBIC)).sum() == 2


def test_nothing_predicted_stays_nothing() -> None:
    empty = line(0, 0, 0)
    assert apply(LargestComponent("WT"), empty) == [0, 0, 0]
    assert apply(SmallComponents("WT", 1.0), empty) == [0, 0, 0]


def test_small_pieces_go() -> None:
    assert apply(SmallComponents("WT", 2.0), PIECES) == [0, 0, 2, 3, 1, 0, 3, 2]  # as large as 2 mL stays
    assert apply(SmallComponents("WT", 2.5), PIECES) == [0, 0, 2, 3, 1, 0, 0, 0]
    assert apply(SmallComponents("TC", 2.0), PIECES) == [2, 0, 2, 3, 1, 0, 2, 2]
    assert apply(SmallComponents("ET", 2.0), PIECES) == [2, 0, 2, 1, 1, 0, 1, 2]


def test_millilitres_follow_the_spacing() -> None:
    step = SmallComponents("WT", 2.5)
    assert (
        step.apply(Predicted(PIECES, sure(PIECES), (10, 10, 30))).tolist() == PIECES.tolist()
    )  # 3 mL and more


def test_names_and_bad_settings() -> None:
    assert LargestComponent("WT").name == "WT largest component"
    assert SmallComponents("TC", 0.05).name == "TC components of 0.05 mL or more"
    for step in (LargestComponent("WT"), SmallComponents("TC", 0.05)):
        assert step.fitted
        assert step.fit([]) == {}
        assert step.with_parameters({}) == step
        with pytest.raises(ValueError, match="ml is not fitted here"):
            step.with_parameters({"ml": 1.0})
    with pytest.raises(ValueError, match="region=wt"):
        LargestComponent("wt")
    with pytest.raises(ValueError, match="above 0 mL"):
        SmallComponents("WT", 0.0)

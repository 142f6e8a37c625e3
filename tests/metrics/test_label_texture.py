"""Texture of labels by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.metrics.label_texture import NAMES, label_texture


def test_three_voxels_in_a_row_by_hand() -> None:
    found = dict(zip(NAMES, label_texture(np.array([1, 1, 2], np.uint8).reshape(3, 1, 1), 2), strict=True))
    # Pairs both ways: (1,1) twice, (1,2) and (2,1) once: 1/2, 1/4, 1/4, and 3/4, 1/4 alone. Runs: along the first axis
    # one of 1 of length 2 and one of 2; along each of the others two of 1 and one of 2 of length 1: 8 in all.
    alone = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert found["rmi"] == pytest.approx((2 * alone - 1.5) / alone)
    assert found["imc"] == pytest.approx((1.5 - 2 * alone) / alone)
    assert found["joint_energy"] == pytest.approx(1 / 4 + 2 / 16)
    assert found["entropy"] == pytest.approx(-(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3)))
    assert found["lre"] == pytest.approx((4 + 7) / 8)
    assert found["sre"] == pytest.approx((1 / 4 + 7) / 8)
    assert found["non_uniformity"] == pytest.approx((5**2 + 3**2) / 8**2)
    assert found["rv"] == pytest.approx(1 / 8 * (2 - 9 / 8) ** 2 + 7 / 8 * (1 - 9 / 8) ** 2)
    kinds = np.array([1, 4, 3]) / 8
    assert found["re"] == pytest.approx(-(kinds * np.log2(kinds)).sum())


def test_what_lies_outside_has_no_part_and_names_of_labels_do_not_matter() -> None:
    labels = np.random.default_rng(0).integers(1, 4, (4, 5, 6)).astype(np.uint8)
    framed = np.pad(labels, 2)
    np.testing.assert_allclose(label_texture(framed, 3), label_texture(labels, 3))
    renamed = np.array([0, 3, 1, 2], np.uint8)[framed]
    np.testing.assert_allclose(label_texture(renamed, 3), label_texture(framed, 3))


def test_one_label_has_no_information() -> None:
    found = dict(zip(NAMES, label_texture(np.ones((2, 2, 2), np.uint8), 3), strict=True))
    assert (found["rmi"], found["entropy"], found["joint_energy"], found["lre"]) == (0, 0, 1, 4)
    with pytest.raises(ValueError, match="no voxel"):
        label_texture(np.zeros((2, 2, 2), np.uint8), 3)

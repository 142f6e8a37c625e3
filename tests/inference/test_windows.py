"""Sliding windows: the grid of the source comes back, and the values are the network's, in 3D and slice by slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.inference.windows import slice_probabilities, volume_probabilities
from tests.inference.toy_networks import Constant, Echo, image_of

OPTIONS = {"overlap": 0.5, "batch": 2, "amp": False}


def sigmoid(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).sigmoid()


@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 8), (9, 20, 13), (3, 30, 8)], ids=str)
def test_source_grid_and_constant_come_back(shape: tuple[int, int, int]) -> None:
    network = Constant()
    found = volume_probabilities(network, torch.zeros(4, *shape), window=[8, 8, 8], **OPTIONS)
    assert found.shape == (3, *shape)
    assert found.dtype == torch.float32
    for region, value in enumerate((1.5, -0.25, 3.0)):
        torch.testing.assert_close(found[region], torch.full(shape, 1 / (1 + np.exp(-value))))
    assert network.sizes == {(8, 8, 8)}


@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 20, 13)], ids=str)
def test_every_voxel_stays_in_its_place(shape: tuple[int, int, int]) -> None:
    image = image_of(shape)
    found = volume_probabilities(Echo(), torch.from_numpy(image), window=[8, 8, 8], **OPTIONS)
    torch.testing.assert_close(found, sigmoid(image[:3]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 20, 13)], ids=str)
def test_slices_restack_exactly(plane: str, shape: tuple[int, int, int]) -> None:
    """The probability is a function of the voxel alone, so any slice put back wrongly shows."""
    image = image_of(shape)
    found = slice_probabilities(Echo(), torch.from_numpy(image), plane, window=[8, 8], **OPTIONS)
    torch.testing.assert_close(found, sigmoid(image[:3]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("plane", "sides"), [("axial", (9, 10)), ("coronal", (9, 11)), ("sagittal", (10, 11))]
)
def test_a_slice_is_cut_across_its_axis(plane: str, sides: tuple[int, int]) -> None:
    network = Constant()
    slice_probabilities(network, torch.zeros(4, 9, 10, 11), plane, window=sides, **OPTIONS)
    assert network.sizes == {sides}


def test_exclusive_classes_are_softmaxed() -> None:
    image = image_of((6, 7, 5))
    for found in (
        volume_probabilities(Echo(4), torch.from_numpy(image), window=[8, 8, 8], **OPTIONS),
        slice_probabilities(Echo(4), torch.from_numpy(image), "axial", window=[8, 8], **OPTIONS),
    ):
        torch.testing.assert_close(found, torch.from_numpy(image).softmax(0), atol=1e-5, rtol=1e-5)

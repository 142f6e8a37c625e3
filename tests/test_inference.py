"""Sliding-window inference: the grid of the source comes back, and the values are the network's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedbrats.inference import logits_to_labels, predict_logits


class Constant(nn.Module):
    """Answers each region's constant everywhere; remembers the sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, ...]] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.sizes.add(tuple(image.shape[2:]))
        values = torch.tensor([1.5, -0.25, 3.0]).view(1, 3, 1, 1, 1)
        return values.repeat(len(image), 1, *image.shape[2:])


class Echo(nn.Module):
    """Region i is the voxel of modality i."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :3]


def predict(network: nn.Module, image: np.ndarray, window: tuple[int, int, int] = (8, 8, 8)) -> Tensor:
    device = torch.device("cpu")
    return predict_logits(network, image, window=window, overlap=0.5, batch=2, device=device, amp=False)


@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 8), (9, 20, 13), (3, 30, 8)], ids=str)
def test_source_grid_and_constant_come_back(shape: tuple[int, int, int]) -> None:
    network = Constant()
    logits = predict(network, np.zeros((4, *shape), np.float16))
    assert logits.shape == (3, *shape)
    assert logits.dtype == torch.float32
    for region, value in enumerate((1.5, -0.25, 3.0)):
        torch.testing.assert_close(logits[region], torch.full(shape, value))
    assert network.sizes == {(8, 8, 8)}


@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 20, 13)], ids=str)
def test_every_voxel_stays_in_its_place(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    torch.testing.assert_close(predict(Echo(), image), torch.from_numpy(image[:3]), atol=1e-5, rtol=1e-5)


def test_a_read_only_image_is_left_alone() -> None:
    image = np.random.default_rng(1).normal(size=(4, 9, 9, 9)).astype(np.float16)
    image.flags.writeable = False
    before = image.tobytes()
    predict(Echo(), image)
    assert image.tobytes() == before


def test_logits_become_labels() -> None:
    """Channels WT, TC, ET; > 0 is inside. Nothing -> 0, all -> ET = 3, WT and TC -> NCR = 1, WT -> ED = 2."""
    logits = torch.tensor([[-1.0, 2, 0.2, 2, 0], [-1, 2, 0.2, -2, 0], [-1, 2, -0.2, -2, 0]]).view(3, 5, 1, 1)
    labels = logits_to_labels(logits)
    assert labels.dtype == np.uint8
    assert labels.ravel().tolist() == [0, 3, 1, 2, 0]

"""Batches for the tests of augmentation, and a spy on the transforms that it uses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.data import augment as module
from fedbrats.data.augmentation import moving


def marked_batch(size: int, sides: tuple[int, ...] = (4, 5, 6)) -> tuple[Tensor, Tensor]:
    """Background everywhere but on an asymmetric set of voxels, where image and label tell the same."""
    label = torch.zeros(sides, dtype=torch.uint8).flatten()
    label[torch.tensor([8, 10 + sides[-1], len(label) - 1])] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    labels = label.reshape(sides).repeat(size, *[1] * len(sides))
    return (labels[:, None] * 10.0).repeat(1, 4, *[1] * len(sides)), labels


def brain_batch(size: int, sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Random brain on the inner part, zeros around it, labels with all four values."""
    rng = np.random.default_rng(0)
    images = torch.zeros((size, 4, *sides))
    inner = (slice(None), slice(None), *[slice(2, side - 2) for side in sides])
    images[inner] = torch.from_numpy(rng.normal(size=images[inner].shape)).float()
    labels = torch.zeros((size, *sides), dtype=torch.uint8)
    labels[inner[1:]] = torch.from_numpy(rng.integers(0, 4, labels[inner[1:]].shape)).to(torch.uint8)
    return images, labels


class Spy:
    """Stands for a class of MONAI in the module that has it; keeps what each call made and with which arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        where = moving if name == "Affine" else module
        self.real: Callable[..., Any] = getattr(where, name)
        self.made: list[tuple[Any, tuple, dict]] = []
        monkeypatch.setattr(where, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.made.append((self.real(*args, **kwargs), args, kwargs))
        return self.made[-1][0]

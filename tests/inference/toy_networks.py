"""Networks whose answers can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbrats.config.schema import InferenceConfig, InputConfig
from fedbrats.inference.predict import Prediction, predict


class Constant(nn.Module):
    """Answers each region's constant everywhere; remembers the sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, ...]] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.sizes.add(tuple(image.shape[2:]))
        values = torch.tensor([1.5, -0.25, 3.0]).view(1, 3, *[1] * (image.ndim - 2))
        return values.repeat(len(image), 1, *image.shape[2:])


class Echo(nn.Module):
    """Logit i is the voxel of modality i."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, image: Tensor) -> Tensor:
        return image[:, : self.channels]


class Ramp(nn.Module):
    """Logit of every region = scale x index along the first axis of the window, whatever the image."""

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        index = torch.arange(image.shape[2], dtype=torch.float32)
        values = self.scale * index.view(1, 1, -1, *[1] * (image.ndim - 3))
        return values.repeat(len(image), 3, 1, *image.shape[3:])


class Dropping(nn.Module):
    """Batch norm, dropout and a little convolution; three regions."""

    def __init__(self, p: float = 0.5, sides: int = 3) -> None:
        super().__init__()
        kinds = {2: (nn.Conv2d, nn.BatchNorm2d, nn.Dropout2d), 3: (nn.Conv3d, nn.BatchNorm3d, nn.Dropout)}
        conv, norm, drop = kinds[sides]
        self.body = nn.Sequential(conv(4, 6, 3, padding=1), norm(6), drop(p), conv(6, 3, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


def image_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Image float32 [4, *shape]."""
    return np.random.default_rng(seed).normal(size=(4, *shape)).astype(np.float32)


def predict_toy(network: nn.Module, image: np.ndarray, window: list[int], **settings: Any) -> Prediction:
    """`predict` on the CPU; `planes` and `seed` apart, `settings` are those of InferenceConfig."""
    rules = InputConfig(patch=window, planes=settings.pop("planes", ["axial"]))
    seed = settings.pop("seed", 0)
    inference = InferenceConfig(**{"overlap": 0.0, **settings})
    options = {"rules": rules, "inference": inference, "window": window, "seed": seed}
    return predict(network.eval(), image, device=torch.device("cpu"), **options)

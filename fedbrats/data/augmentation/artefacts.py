"""Artefacts of a scan: thick slices, blur, noise and a bias field."""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import GaussianSmooth, RandBiasField
from torch import Tensor
from torch.nn.functional import interpolate

P_THICK = P_BLUR = P_NOISE = 0.25
P_BIAS = 0.3
THICK, BLUR, NOISE = (1.5, 5.0), (0.0, 2.0), (0.0, 0.25)  # factor, voxels, standard deviations
BIAS, ORDER = 0.5, 3  # largest coefficient, degree of the polynomial


def artefacts(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe artefacts, "Restricted" of the U-Net baseline (BrainLes 2021, section 2.2), 2D and 3D.

    Printed: RandomAnisotropy, RandomBlur and RandomNoise with p = 0.25 each and RandomBiasField with p = 0.3, of
    TorchIO. Their ranges are not printed and are TorchIO's defaults: one axis 1.5 to 5 times coarser and back, Gaussian
    blur of up to 2 voxels along each axis, noise of up to 0.25, and a field whose logarithm is a polynomial of degree 3
    with coefficients up to 0.5 (MONAI's, in the order of the list). All modalities get the same but for the noise.
    Voxels that are 0 stay 0; labels are not changed.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from; each sample has draws of its own.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    bias = RandBiasField(degree=ORDER, coeff_range=(-BIAS, BIAS), prob=P_BIAS).set_random_state(state=state)
    found = torch.empty_like(images)
    for index in range(len(images)):
        image = images[index]
        if state.uniform() < P_THICK:
            image = _thick(image, state)
        if state.uniform() < P_BLUR:
            image = GaussianSmooth(state.uniform(*BLUR, size=image.ndim - 1).tolist())(image)
        if state.uniform() < P_NOISE:
            drawn = state.normal(0, state.uniform(*NOISE), tuple(image.shape))
            image = image + torch.from_numpy(drawn).to(image)
        found[index] = bias(image)
    return found.masked_fill_(images == 0, 0), labels.clone()


def _thick(image: Tensor, state: np.random.RandomState) -> Tensor:
    """[C, *S] read at fewer places along one axis, and in between linearly."""
    sides = list(image.shape[1:])
    coarse = list(sides)
    axis = state.randint(len(sides))
    coarse[axis] = max(1, round(sides[axis] / state.uniform(*THICK)))
    mode = "trilinear" if len(sides) == 3 else "bilinear"
    small = interpolate(image[None], size=coarse, mode="nearest")
    return interpolate(small, size=sides, mode=mode, align_corners=False)[0]

"""Start from the share of voxels that are tumour, not from a coin toss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fedbrats.data.regions import BACKGROUND
from fedbrats.tasks.segmentation import is_softmax


def set_output_prior(network: nn.Module, channels: int, prior: float | None) -> None:
    """Set the output bias so that tumour starts with probability `prior` (Lin et al., ICCV 2017, section 4.1).

    A region covers a few per cent of the voxels. Starting at one half, short federated runs spend their first rounds
    moving the bias, and a region can get stuck at "nothing". With sigmoid outputs every region starts at `prior`.
    With exclusive classes (softmax) the background starts at 1 - `prior` and the tumour classes share `prior`
    equally, so that together they start at it. No seed paper does this; models/README.md says where it replaces what
    a paper prints.

    Args:
        network: its last convolution with `channels` outputs and a bias is the output layer.
        channels: number of output channels; what they mean is said in `fedbrats.tasks.segmentation`.
        prior: probability in (0, 1); None leaves the bias as the network starts it.

    Raises:
        ValueError: `prior` outside (0, 1), or no such layer.
    """
    if prior is None:
        return
    bias = prior_bias(channels, prior)
    outputs = [
        m
        for m in network.modules()
        if isinstance(m, _ConvNd) and m.out_channels == channels and m.bias is not None
    ]
    if not outputs:
        raise ValueError(f"{type(network).__name__} has no convolution with {channels} outputs and a bias.")
    with torch.no_grad():
        outputs[-1].bias.copy_(bias)  # type: ignore[union-attr]


def prior_bias(channels: int, prior: float) -> Tensor:
    """Output bias float [channels]. An equal bias cancels in a softmax, so there the background gets its own.

    Raises:
        ValueError: `prior` outside (0, 1).
    """
    if not 0 < prior < 1:
        raise ValueError(f"model.prior={prior}: must lie in (0, 1), a probability.")
    if not is_softmax(channels):
        return torch.full((channels,), math.log(prior / (1 - prior)))
    bias = torch.full((channels,), math.log(prior / (channels - 1)))
    bias[BACKGROUND] = math.log(1 - prior)
    return bias

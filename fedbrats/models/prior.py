"""Start from the share of voxels that are tumour, not from a coin toss."""

from __future__ import annotations

import math

from torch import nn
from torch.nn.modules.conv import _ConvNd


def set_output_prior(network: nn.Module, channels: int, prior: float) -> None:
    """Set the output bias so that every region starts with probability `prior` (Lin et al., ICCV 2017, section 4.1).

    A region covers a few per cent of the voxels. Starting at one half, short federated runs spend their first rounds
    moving the bias, and a region can get stuck at "nothing".

    Args:
        network: its last convolution with `channels` outputs and a bias is the output layer.
        channels: number of output channels.
        prior: probability in (0, 1).

    Raises:
        ValueError: `prior` outside (0, 1), or no such layer.
    """
    if not 0 < prior < 1:
        raise ValueError(f"model.prior={prior}: must lie in (0, 1), a probability.")
    outputs = [
        m
        for m in network.modules()
        if isinstance(m, _ConvNd) and m.out_channels == channels and m.bias is not None
    ]
    if not outputs:
        raise ValueError(f"{type(network).__name__} has no convolution with {channels} outputs and a bias.")
    nn.init.constant_(outputs[-1].bias, math.log(prior / (1 - prior)))  # type: ignore[arg-type]

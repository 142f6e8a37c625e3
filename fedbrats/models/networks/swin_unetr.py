"""Swin UNETR (Hatamizadeh et al., BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

MULTIPLE = 32  # patches of 2, then four mergings of 2


def swin_unetr(
    in_channels: int = 4,
    out_channels: int = 3,
    feature_size: int = 48,
    depths: Sequence[int] = (2, 2, 2, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int = 7,
    use_checkpoint: bool = False,
    prior: float | None = 0.1,
) -> SwinUNETR:
    """Swin transformer encoder, convolutional decoder: MONAI's `SwinUNETR` with the settings of section 3 and Table 1.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 32 and returns logits
    [batch, out_channels, X, Y, Z].

    Printed are 61.98 million parameters; MONAI's network with the printed settings has 62,191,941, 0.34 % more. The
    text merges patches into 4C features before the linear layer, which is the 2D number; MONAI concatenates the eight
    neighbours of 3D. The decoder's norms are without weights, as MONAI's plain instance norm is.

    Training (conf/model/swin_unetr.yaml): printed is a batch of 1 on each of 8 GPUs, here 1; the optimiser and the
    length of the warm-up are not printed, nor an initialisation, for which `prior` is set. See "What is not as printed"
    in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        feature_size: width of the embedding, a multiple of 12.
        depths: transformer blocks per stage.
        num_heads: attention heads per stage.
        window_size: side of an attention window in tokens.
        use_checkpoint: recompute the transformer's activations in the backward pass; less memory, more time.
        prior: probability that every output channel starts with.

    Raises:
        ValueError: a width that MONAI refuses, or a bad `prior`.
    """
    device = torch.get_default_device()
    with torch.device("cpu"):  # MONAI reads values while it builds, which the meta device does not have
        network = SwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=feature_size,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            use_checkpoint=use_checkpoint,
        )
    network.to(device)
    network.register_forward_pre_hook(_check)
    set_output_prior(network, out_channels, prior)
    return network


def _check(network: nn.Module, inputs: tuple[Tensor]) -> None:
    check_sides(inputs[0], MULTIPLE, instance_norm=True)

"""U-Net with a variational branch for training ("3D MRI Brain Tumour Segmentation", BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.segresnet_block import ResBlock, get_conv_layer, get_upsample_layer
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from fedbrats.models.blocks import check_group_widths, norm_layer
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

NARROW = 16  # channels before and after the dense layers (Myronenko, Table 2)


def vae_unet(
    in_channels: int = 4,
    out_channels: int = 4,
    init_filters: int = 16,
    blocks_down: Sequence[int] = (1, 2, 2, 4),
    latent: int = 128,
    patch: Sequence[int] = (144, 144, 144),
    norm: str = "group",
    branch: bool = True,
    prior: float | None = 0.1,
) -> VAEUNet:
    """U-Net of the paper on a multi-label Hausdorff loss, section 2 and Figure 1: Myronenko's, whose branch it has.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(blocks_down) - 1), 8 by default, and
    returns logits [batch, out_channels, X, Y, Z]. In training, where the sides are those of `patch`, a list of these,
    of the error of the reconstruction [batch] and of the KL divergence [batch], which `losses.deep_supervision` weighs
    by `train.deep_supervision`; the branch has no part in a prediction. `personalization=head_local
    personalization.layers=[branch]` keeps its arrays at the sites.

    Printed and chosen (no layer and no width is printed but in Figure 1):

    - Network: "inspired by the one published by Myronenko et al." (BrainLes 2018): its Tables 1 and 2, with MONAI's
      `SegResNet` and, in the branch, a decoder of the same blocks without skips and of its own weights. 16 filters
      instead of Myronenko's 32, as two patches of 144x144x144 had to fit into 16 GB (section 3). No dropout is printed.
    - Reconstruction: "L2 norm of the reconstruction error" (Equation 4). Here its square, as in Myronenko's Equation 4,
      the mean over voxels and modalities.
    - KL: "Kulback-Leibler norm" (sic) between the branch's normal distributions and N(0, 1). Here Myronenko's Equation
      5: the sum over the latent numbers of mu^2 + sigma^2 - log sigma^2 - 1, over the number of voxels of the patch.
    - Weights: 1 for the voxels' loss, 0.1 for each of both terms. `train.deep_supervision` scales them to sum 1, so
      the loss told is Equation 4 over 1.2; AdamW does not see it.
    - Output: four channels by a softmax, said to be background, ET, "TC and necrosis" and WT, which overlap. Here the
      exclusive classes of the labels.

    Not as printed: conf/model/vae_unet.yaml and "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences; the branch reconstructs all of them.
        out_channels: see `tasks.segmentation`.
        init_filters: channels at full size, doubled per level.
        blocks_down: residual blocks per level of the encoder; the decoders have one per level.
        latent: numbers that the branch draws.
        patch: sides of the training patch, which the dense layers of the branch need; multiples of twice those of
            the input.
        norm: batch, instance or group.
        branch: whether there is one; without it training has the logits alone and `patch` is not read.
        prior: probability of tumour that the output starts with.

    Raises:
        ValueError: fewer than two levels, a `patch` that the branch cannot halve, no latent number, an unknown `norm`,
            or widths that 8 does not divide with group norm; in the forward pass, sides that it does not take.
    """
    if len(blocks_down) < 2 or min(blocks_down) < 1:
        raise ValueError(f"model.blocks_down={list(blocks_down)}: two or more levels of one block or more.")
    if norm == "group":
        check_group_widths([init_filters])
    if latent < 1:
        raise ValueError(f"model.latent={latent}: must be 1 or more.")
    multiple = 2 ** len(blocks_down)
    if branch and (len(patch) != 3 or any(side < multiple or side % multiple for side in patch)):
        raise ValueError(f"model.patch={list(patch)}: three sides that are multiples of {multiple}.")
    network = VAEUNet(
        SegResNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            init_filters=init_filters,
            blocks_down=tuple(blocks_down),
            blocks_up=(1,) * (len(blocks_down) - 1),
            norm=norm_layer(norm),
        ),
        Branch(in_channels, init_filters, len(blocks_down), latent, patch, norm) if branch else None,
        multiple // 2,
    )
    set_output_prior(network.segmentation, out_channels, prior)
    return network


class Branch(nn.Module):
    """Variational autoencoder on the deepest features (Myronenko, Table 2)."""

    def __init__(
        self,
        in_channels: int,
        init_filters: int,
        levels: int,
        latent: int,
        patch: Sequence[int],
        norm: str,
    ) -> None:
        """Arguments as in `vae_unet`; `levels` of the encoder."""
        super().__init__()
        self.patch = tuple(patch)
        widths = [init_filters * 2**level for level in reversed(range(levels))]
        small = [side // 2**levels for side in patch]
        numbers = NARROW * small[0] * small[1] * small[2]
        self.down = nn.Sequential(
            get_norm_layer(norm_layer(norm), 3, widths[0]),
            nn.ReLU(),
            get_conv_layer(3, widths[0], NARROW, stride=2, bias=True),
            nn.Flatten(),
            nn.Linear(numbers, 2 * latent),
        )
        up: list[nn.Module] = [nn.Linear(latent, numbers), nn.ReLU(), nn.Unflatten(1, (NARROW, *small))]
        for before, width in zip([NARROW, *widths], widths):
            up += [get_conv_layer(3, before, width, kernel_size=1), get_upsample_layer(3, width)]
            if width != widths[0]:
                up.append(ResBlock(3, width, norm_layer(norm)))
        self.up = nn.Sequential(*up, get_conv_layer(3, widths[-1], in_channels, kernel_size=1, bias=True))

    def forward(self, features: Tensor, images: Tensor) -> list[Tensor]:
        """Error of the reconstruction of `images` and KL divergence, float32 [batch] each.

        Raises:
            ValueError: `images` are no patches of the size that the branch is made for.
        """
        sides = tuple(images.shape[2:])
        if sides != self.patch:
            raise ValueError(
                f"input sides {list(sides)} in training: the variational branch is made for model.patch="
                f"{list(self.patch)}; set model.patch to the sides of train.patch, or model.branch=false."
            )
        mean, log_variance = self.down(features).float().chunk(2, 1)
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = (self.up(drawn).float() - images.float()).square().flatten(1).mean(1)
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        return [error, divergence / images[0, 0].numel()]


class VAEUNet(nn.Module):
    """The network behind `vae_unet`."""

    def __init__(self, segmentation: SegResNet, branch: Branch | None, multiple: int) -> None:
        """`multiple` of the sides."""
        super().__init__()
        self.segmentation, self.branch, self.multiple = segmentation, branch, multiple

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; in training a list of them and of what the branch adds to the loss.

        Raises:
            ValueError: sides that the network cannot halve often enough, or no training patch of the branch.
        """
        check_sides(images, self.multiple)
        deepest, skips = self.segmentation.encode(images)
        logits: Tensor = self.segmentation.decode(deepest, skips[::-1])
        if self.training and self.branch is not None:
            return [logits, *self.branch(deepest, images)]
        return logits

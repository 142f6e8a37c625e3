"""3D ResUNet (Pei and Liu, BrainLes 2021): residual blocks down and up, trained by cross-entropy alone."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks import UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn

from fedbrats.models.blocks import check_widths, norm_layer
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def resunet3d(
    in_channels: int = 4,
    out_channels: int = 4,
    channels: Sequence[int] = (32, 64, 128, 256, 512),
    prior: float | None = 0.1,
) -> ResUNet3D:
    """Encoder and decoder of residual blocks, sections 2.1 and 4.1 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 16 by default, and
    returns logits [batch, out_channels, X, Y, Z].

    Printed: an encoding part, a decoding part that turns its features into label maps, residual by its name, an input
    of 128x128x128 (section 4.1). Depth, widths, norm, and the form of the blocks are in Figure 1 only and no size is
    printed to check them by. Chosen, the plainest network of that name:

    - MONAI's residual block of nnU-Net: two 3x3x3 convolutions with instance norm and leaky ReLU, a 1x1x1 convolution
      beside them where width or size change, the sum before the last activation. A batch of one (section 4.1) leaves
      BatchNorm little to average.
    - Five levels of doubling width from 32; the first block of a level has stride 2. Transposed convolutions up, the
      skip concatenated.
    - Four exclusive classes: the figures show NCR, ED and ET, and "label maps" are compared with the truth.

    Contradictions: Equation 1 prints the cross-entropy of two classes, which is taken for each voxel's four. The
    abstract and Table 1 differ in the WT Dice of the validation cases (0.9195 and 0.899), and section 4.4 has the names
    of WT and TC the other way round.

    Training (conf/model/resunet3d.yaml): batch 1, Adam at 1e-3 with Equation 2, crops anywhere; no augmentation and no
    initialisation are printed. See "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        prior: probability of tumour that the output starts with.

    Raises:
        ValueError: fewer than two levels, or a bad `prior`.
    """
    check_widths(channels, convolutions=2)
    network = ResUNet3D(in_channels, out_channels, tuple(channels))
    set_output_prior(network, out_channels, prior)
    return network


class ResUNet3D(nn.Module):
    """Residual blocks with stride 2 down, transposed convolutions and residual blocks up."""

    def __init__(self, in_channels: int, out_channels: int, channels: Sequence[int]) -> None:
        """`channels` per level."""
        super().__init__()
        norm = norm_layer("instance")
        self.multiple = 2 ** (len(channels) - 1)
        self.encoder = nn.ModuleList(
            UnetResBlock(3, before, width, kernel_size=3, stride=1 if level == 0 else 2, norm_name=norm)
            for level, (before, width) in enumerate(zip([in_channels, *channels[:-1]], channels))
        )
        # Decoder levels from the deepest to the shallowest.
        self.decoder = nn.ModuleList(
            UnetrUpBlock(
                3, deeper, width, kernel_size=3, upsample_kernel_size=2, norm_name=norm, res_block=True
            )
            for deeper, width in zip(channels[:0:-1], channels[-2::-1])
        )
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        for level, skip in zip(self.decoder, skips[-2::-1]):
            features = level(features, skip)
        return self.head(features)

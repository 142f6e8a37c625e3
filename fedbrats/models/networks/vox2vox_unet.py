"""U-Net from the generator of Vox2Vox ("modified UNet", BrainLes 2021), without its critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedbrats.models.prior import prior_bias
from fedbrats.models.sides import check_sides

LEVELS = 4
KERNEL = 4
SLOPE = 0.3  # of the leaky ReLU
SAME = (1, 2) * 3  # zeros before and after each axis, that a kernel of 4 keeps the sides


def vox2vox_unet(
    in_channels: int = 4,
    out_channels: int = 4,
    filters: int = 64,
    dropout: float = 0.2,
    prior: float | None = 0.1,
) -> Vox2VoxUNet:
    """U-Net of 4x4x4 convolutions whose skips are refined on their way across, section 2.2 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 16 and returns logits
    [batch, out_channels, X, Y, Z].

    Printed: the blocks, all with kernels of 4x4x4, instance norm and leaky ReLU of slope 0.3. Four Downward (stride 2);
    four Horizontal1 ("each encoder output (Downward)" passes through one); three Horizontal2 with a dropout of 0.2
    between norm and activation, each of a concatenation of "current input and its previous output from horizontal
    layer"; three Upward1 (transposed, stride 2), each concatenated with "corresponding Horizontal2"; one Upward2 with
    instance norm and softmax. Four classes: NCR, ED, ET, everything else.

    Where the three Horizontal2 lie is in Figure 1 only. Chosen: on the three skips, one per Upward1 as the last quote
    wants it, each of an encoder output and that output after Horizontal1 ("bottleneck layer at each encoder's block
    output", introduction); the deepest level has Horizontal1 alone. The other reading, all three in a row at the
    deepest level as in Vox2Vox (Cirillo et al., BrainLes 2020), leaves no "corresponding" one. Not printed, taken from
    the public release of Vox2Vox: 64 filters, doubled at each level. Not printed: whether norms have weights (they
    have), padding (even kernels keep the sides with one zero before and two after, as TensorFlow's "same"). "Residual
    connections" are named in section 2.2 and not described; none is made.

    Contradiction: the abstract prints a Dice of 0.73, 0.67 and 0.63 (WT, TC, ET) on the test cases, Table 3 prints
    0.73, 0.69 and 0.65; 0.67 and 0.63 are the sensitivities of Table 4.

    Training (conf/model/vox2vox_unet.yaml): generalised Dice weighted by the inverse of the volume, Adam at 5e-5,
    elastic deformation. See "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        filters: width of the first level, doubled at each of the four.
        dropout: probability that an activation of a Horizontal2 is dropped.
        prior: probability of tumour that the output starts with; the last norm has it as its bias.

    Raises:
        ValueError: fewer than one filter, or a bad `prior`.
    """
    if filters < 1:
        raise ValueError(f"model.filters={filters}: must be 1 or more.")
    network = Vox2VoxUNet(in_channels, out_channels, [filters * 2**i for i in range(LEVELS)], dropout)
    if prior is not None:
        with torch.no_grad():
            network.norm.bias.copy_(prior_bias(out_channels, prior))
    return network


def _down(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, width, KERNEL, stride=2, padding=1, bias=False),
        nn.InstanceNorm3d(width, affine=True),
        nn.LeakyReLU(SLOPE),
    )


def _horizontal(before: int, width: int, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.ZeroPad3d(SAME),
        nn.Conv3d(before, width, KERNEL, bias=False),
        nn.InstanceNorm3d(width, affine=True),
        nn.Dropout(dropout) if dropout else nn.Identity(),
        nn.LeakyReLU(SLOPE),
    )


def _up(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose3d(before, width, KERNEL, stride=2, padding=1, bias=False),
        nn.InstanceNorm3d(width, affine=True),
        nn.LeakyReLU(SLOPE),
    )


class Vox2VoxUNet(nn.Module):
    """Strided convolutions down, two convolutions across, transposed convolutions up."""

    def __init__(self, in_channels: int, out_channels: int, widths: list[int], dropout: float) -> None:
        """`widths` per level."""
        super().__init__()
        self.multiple = 2 ** len(widths)
        skips = widths[:-1]
        self.down = nn.ModuleList(_down(i, o) for i, o in zip([in_channels, *skips], widths))
        self.horizontal1 = nn.ModuleList(_horizontal(width, width) for width in widths)
        self.horizontal2 = nn.ModuleList(_horizontal(2 * width, width, dropout) for width in skips)
        # From the deepest to the shallowest; what comes after the first is twice as wide by the skip.
        before = [widths[-1], *(2 * width for width in skips[:0:-1])]
        self.up = nn.ModuleList(_up(i, o) for i, o in zip(before, skips[::-1]))
        self.last = nn.ConvTranspose3d(2 * skips[0], out_channels, KERNEL, stride=2, padding=1, bias=False)
        self.norm = nn.InstanceNorm3d(out_channels, affine=True)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for down, first, second in zip(self.down, self.horizontal1, [*self.horizontal2, None]):
            features = down(features)
            refined = first(features)
            skips.append(refined if second is None else second(torch.cat([features, refined], dim=1)))
        features = skips.pop()
        for up, skip in zip(self.up, skips[::-1]):
            features = torch.cat([up(features), skip], dim=1)
        return self.norm(self.last(features))

"""EMSViT, the efficient multi-scale vision transformer (BrainLes 2021), in 3D.

Sagar, "EMSViT: Efficient multi scale vision transformer for biomedical image segmentation", sections 2.4 and 3.2 to
3.6, Equations 1 to 8 and 12. The layers are drawn in Figure 2 only, and no count of parameters is printed, so the
widths below cannot be checked. What is printed describes several networks; this one keeps their equations.

Printed and chosen, in the order of the forward pass:

- Tokens (Eq. 1): patches, linear embedding, learnt positions. Patches of 4 (section 3.6) are of 224x224 slices, those
  of 16 (Figure 2) of nothing that is named; the transformer's output has 1/8 of each side (section 3.2), so patches
  have 8x8x8 voxels. Width 384, the best of Table 6 (Figure 2 has 768). Positions are resized where a window leaves
  others.
- Multi-scale block (abstract, section 3.2): the channels in three parts, through 1x1x1, 3x3x3 and 5x5x5, joined.
- Transformer blocks (Eq. 2 and 3): three (abstract) in encoder and decoder each; the best depth of Table 6 is 4, of
  what is not said. Attention in windows with a bias of relative positions (Eq. 7); its table is printed (2M-1)x(2M+1),
  is (2M-1)x(2M-1) in the work that this is from (Swin, which is MONAI's here) and (2M-1)^3 in 3D. M is not printed: 8
  tokens. Windows are not said to shift. 8 heads, four times the width in the MLP.
- Global attention over all positions of the encoder's features (Eq. 4 and 5), added to them. Equation 5 sums B_ij W_j
  over i, which by Equation 4 is W_j, so it would join nothing; chosen: B_ij W_i. The projections M and N have an eighth
  of the width (Fu et al., DANet).
- Decoder: each of its blocks joins the features of the encoder's block of the same depth, last first, and a linear
  layer brings them back to the width; then "a similar split and concat".
- "A convolution block" to K channels: K = 128, as in TransBTS, whose sentence this is. Then, up to full size,
  transposed convolutions (Table 5; section 3.3 has bilinear, which is worse) and a 3x3x3 one, halving the channels,
  each joined with its input, interpolated (Eq. 6); the last has no subsequent block, so it is joined with nothing.
  Instance norm and leaky ReLU.
- Loss: Equation 12, where cross-entropy lacks its minus, so a wrong prediction would win; four exclusive classes.

Table 2 and Table 3 report WT Dice of 90.28 and 79.52 for the same data; both cannot be of one network.

Not as printed: conf/model/emsvit.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import Tensor, nn

from fedbrats.models.blocks import stage, upsampled
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

KERNELS = (1, 3, 5)


def emsvit(
    in_channels: int = 4,
    out_channels: int = 4,
    width: int = 384,
    blocks: int = 3,
    heads: int = 8,
    patch: int = 8,
    window: int = 8,
    grid: int = 16,
    decoder: int = 128,
    prior: float | None = 0.1,
) -> EMSViT:
    """Convolutions of three sizes and transformer blocks, on patches of the image; exclusive classes by default.

    Takes float32 [batch, in_channels, X, Y, Z] with sides that are multiples of `patch * window` and returns logits
    [batch, out_channels, X, Y, Z].

    Args:
        in_channels: modalities.
        out_channels: see `tasks.segmentation`.
        width: of a token (d), a multiple of 3 and of `heads`.
        blocks: transformer blocks of the encoder, and of the decoder.
        heads: of attention.
        patch: side of a patch in voxels, a power of 2.
        window: side of a window of attention in tokens (M).
        grid: tokens along each side that positions are learnt for: side of the training patch / `patch`.
        decoder: channels after the transformer (K), halved with every doubling of the sides; at least 2 are left.
        prior: probability that tumour starts with, see `set_output_prior`.

    Raises:
        ValueError: settings that make no network; in the forward pass, sides that it cannot take.
    """
    if width < 1 or heads < 1 or width % len(KERNELS) or width % heads:
        raise ValueError(f"model.width={width}: must be a multiple of 3 and of model.heads={heads}.")
    if patch < 2 or patch & (patch - 1):
        raise ValueError(f"model.patch={patch}: must be a power of 2, 2 or more.")
    if min(blocks, window, grid) < 1 or decoder < 2 * patch:
        raise ValueError(
            f"model.blocks={blocks}, model.window={window}, model.grid={grid}, model.decoder={decoder}: 1 or more, the "
            f"decoder {2 * patch} (twice model.patch) or more."
        )
    device = torch.get_default_device()
    with torch.device("cpu"):  # MONAI reads values while it builds, which the meta device does not have
        network = EMSViT(in_channels, out_channels, width, blocks, heads, patch, window, grid, decoder)
        set_output_prior(network.head, out_channels, prior)
    return network.to(device)


class MultiScale(nn.Module):
    """A third of the channels through 1x1x1, 3x3x3 and 5x5x5 convolutions each, joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // len(KERNELS)
        self.convolutions = nn.ModuleList(nn.Conv3d(part, part, k, padding=k // 2) for k in KERNELS)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, X, Y, Z], same shape out."""
        parts = features.chunk(len(KERNELS), dim=1)
        return torch.cat([convolution(part) for convolution, part in zip(self.convolutions, parts)], dim=1)


class Block(nn.Module):
    """A transformer block in windows (Eq. 2, 3 and 7)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.layer = SwinTransformerBlock(width, heads, (window,) * 3, (0, 0, 0))

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, X, Y, Z] with sides that are multiples of the window, same shape out."""
        return self.layer(features.movedim(1, -1), None).movedim(-1, 1)


class GlobalAttention(nn.Module):
    """Every position from all (Eq. 4 and 5), beside itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.m, self.n = (nn.Conv3d(width, max(1, width // 8), 1) for _ in range(2))
        self.w = nn.Conv3d(width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, X, Y, Z], same shape out."""
        m, n, w = (layer(features).flatten(2) for layer in (self.m, self.n, self.w))
        shares = (m.transpose(1, 2) @ n).softmax(1)  # [batch, i, j], over all positions i
        return features + (w @ shares).unflatten(2, features.shape[2:])


class Up(nn.Module):
    """Twice the sides: f, a transposed convolution and one of 3x3x3, joined with its input, interpolated (Eq. 6)."""

    def __init__(self, inputs: int, width: int, joins: bool) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.ConvTranspose3d(inputs, width, 2, stride=2), stage(width, [width]))
        self.joins = joins

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, inputs, X, Y, Z] to [batch, width (+ inputs), 2X, 2Y, 2Z]."""
        found: Tensor = self.f(features)
        return torch.cat([found, upsampled(features, found.shape[2:])], dim=1) if self.joins else found


class EMSViT(nn.Module):
    """The network behind `emsvit`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        blocks: int,
        heads: int,
        patch: int,
        window: int,
        grid: int,
        decoder: int,
    ) -> None:
        super().__init__()
        self.multiple = patch * window
        self.embedding = nn.Conv3d(in_channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, width, grid, grid, grid))
        self.split = MultiScale(width)
        self.encoder = nn.ModuleList(Block(width, heads, window) for _ in range(blocks))
        self.attention = GlobalAttention(width)
        self.joins = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for _ in range(blocks))
        self.decoder = nn.ModuleList(Block(width, heads, window) for _ in range(blocks))
        self.decoder_split = MultiScale(width)
        self.reduce = stage(width, [decoder])
        levels, inputs = patch.bit_length() - 1, decoder
        ups = []
        for level in range(1, levels + 1):
            ups.append(Up(inputs, decoder >> level, joins=level < levels))
            inputs += decoder >> level
        self.ups = nn.Sequential(*ups)
        self.head = nn.Conv3d(decoder >> levels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that are no multiples of a window of patches.
        """
        check_sides(images, self.multiple, instance_norm=self.multiple == 1)
        features = self.embedding(images)
        features = self.split(features + upsampled(self.positions, features.shape[2:]))
        skips = []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        features = self.attention(features)
        for join, block in zip(self.joins, self.decoder):
            features = block(join(torch.cat([features, skips.pop()], dim=1)))
        return self.head(self.ups(self.reduce(self.decoder_split(features))))

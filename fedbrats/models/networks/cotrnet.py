"""COTRNet: ResNet-18 with a transformer layer after each stage, and a U-Net's decoder (BrainLes 2021), in 2D.

Yang et al., COTRNet (BrainLes 2021), section 2.1, Figures 2 and 3. No count of parameters is printed; the encoder is
checked against those of ResNet-18.

Where the print is silent or contradicts itself:

- Sides: "an input convolutional block, and four residual blocks" with ResNet-18's weights. Its stem halves 224 twice
  (stride, max-pool) and three stages once each, so the stages have 56, 28, 14 and 7 pixels in a row. With the stem's
  112 that gives the "four skip paths" and, decoded, the five outputs of 14, 28, 56, 112 and 224 (section 2.2); the
  last one has no skip.
- Deep supervision: "four addition output layers" beside the final one, each a 1x1 convolution. Weights 0.05, 0.05,
  0.2, 0.3 and 0.4 are given from the smallest to the largest (Equation 4); the configuration has full size first.
- Transformer: one layer after each stage, of Vaswani et al. (reference 21): 8 heads, four times the width inside,
  dropout 0.1, norms after the sums. None of these, nor an encoding of positions, is printed. Without one any sides go.
- Decoder: "that of the vanilla U-Net": transposed convolution of 2, skip, two 3x3 convolutions. "Each convolution
  layer is followed by a batch normalization layer and ReLU", so they have no bias; the transposed ones have only that.
- Output: "1 x 224 x 224" is the label map; the loss has one channel per class.
- ImageNet: the weights are for three channels and would have to be loaded from elsewhere. Not kept: this is the paper's
  "w/o PT" of Table 1.
- Regions: the nested coding (section 2.2, Figure 4) makes each label one filled region inside the next. That is WT, TC
  and, innermost, NCR; the regions of `tasks.segmentation` have ET there. The background is what WT leaves.
- Dice is printed as A and B over A or B (Equation 5), which is the Jaccard index. HD of ET in the test is 28.2266 in
  section 5.3 and 28.2263 in Table 3.

Not as printed: conf/model/cotrnet.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from fedbrats.models.blocks import convolutions_2d
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

MULTIPLE = 32  # the deepest stage has one pixel where the slice has 32
FORWARD = 4  # times the width, inside a transformer layer


def cotrnet(
    in_channels: int = 4,
    out_channels: int = 3,
    width: int = 64,
    layers: Sequence[int] = (2, 2, 2, 2),
    heads: int = 8,
    dropout: float = 0.1,
    prior: float | None = 0.1,
) -> COTRNet:
    """COTRNet; the nested regions WT, TC and ET as sigmoids by default.

    Takes float32 [batch, in_channels, A, B] with sides that are multiples of 32 and returns logits [batch,
    out_channels, A, B]; in training a list of five, full size first, each next one at half the size.

    Args:
        in_channels: modalities.
        out_channels: see `tasks.segmentation`.
        width: channels of the stem and of the first stage, doubled per stage; a multiple of 16 and of `heads`.
        layers: residual blocks per stage.
        heads: of attention.
        dropout: inside the transformer layers.
        prior: probability that every output starts with, see `set_output_prior`.

    Raises:
        ValueError: `width`, `heads` or `layers` that make no network; in the forward pass, sides that it cannot take.
    """
    # With fewer than 16 channels the backward pass of strided 1x1 convolutions writes past its memory on CPUs with
    # channels last (oneDNN issue 6035, torch 2.13).
    if width < 16 or width % 16:
        raise ValueError(f"model.width={width}: must be a multiple of 16.")
    if heads < 1 or width % heads:
        raise ValueError(f"model.heads={heads}: must divide model.width={width}.")
    if len(layers) != 4 or min(layers) < 1:
        raise ValueError(f"model.layers={list(layers)}: four numbers of 1 or more, one per stage.")
    network = COTRNet(in_channels, out_channels, width, layers, heads, dropout)
    for head in network.heads:
        set_output_prior(head, out_channels, prior)
    return network


class Attention(nn.Module):
    """A transformer encoder layer over the pixels of a feature map (Figure 3)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, heads, FORWARD * width, dropout, batch_first=True)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, A, B], same shape out."""
        found = self.layer(features.flatten(2).transpose(1, 2))
        return found.transpose(1, 2).reshape(features.shape)


class DecoderLevel(nn.Module):
    """Up by two, join the skip if there is one, two convolutions."""

    def __init__(self, inputs: int, width: int, skip: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, width, 2, stride=2)
        self.convolutions = convolutions_2d(2 * width if skip else width, [width, width])

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """Features [batch, inputs, A, B] and the skip [batch, width, 2A, 2B] to [batch, width, 2A, 2B]."""
        features = self.up(features)
        return self.convolutions(features if skip is None else torch.cat([features, skip], dim=1))


class COTRNet(nn.Module):
    """The network behind `cotrnet`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        layers: Sequence[int],
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        resnet = ResNet(
            "basic",
            list(layers),
            widths,
            spatial_dims=2,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, nn.ReLU())
        self.pool = resnet.maxpool
        stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.stages = nn.ModuleList(
            nn.Sequential(stage, Attention(w, heads, dropout)) for stage, w in zip(stages, widths)
        )
        # From the deepest to the shallowest: 14, 28, 56 and 112 pixels with a skip, 224 without.
        ways = [*widths[::-1], width, width]
        self.decoder = nn.ModuleList(
            DecoderLevel(i, o, skip=level < 4) for level, (i, o) in enumerate(pairwise(ways))
        )
        self.heads = nn.ModuleList(nn.Conv2d(w, out_channels, 1) for w in ways[1:])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; a list of them in training.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, MULTIPLE)
        skips = [self.stem(images)]
        features = self.pool(skips[0])
        for stage in self.stages:
            features = stage(features)
            skips.append(features)
        skips.pop()  # the decoder's input
        logits = []
        for level, head in zip(self.decoder, self.heads):
            features = level(features, skips.pop() if skips else None)
            if self.training or level is self.decoder[-1]:
                logits.append(head(features))
        return logits[::-1] if self.training else logits[-1]

"""ResNet-50 encoder and a decoder that sees the image again at every level (Pawar et al., BrainLes 2017), in 2D.

Pawar et al., "Residual encoder and convolutional decoder neural network for glioma segmentation" (BrainLes 2017),
section 3.1 and Table 1. The encoder is the first 49 layers of ResNet-50 (MONAI's), the decoder has ten convolutions.

Where the print is silent or contradicts itself:

- Last convolution: Table 1 prints 64 outputs for Conv-5b and then a softmax from 64 to 4, which a softmax cannot do.
  Section 3.1 counts ten decoder layers and the conclusion 59 in all, so no further convolution follows. In the
  release the tenth convolution makes the class scores. Here likewise: Conv-5b is 3x3 from 64 to the output channels,
  with bias, without BN and ReLU.
- Upsampling: Table 1 prints a fixed 3x3 kernel with stride 2 for every level. Such a transposed convolution has odd
  output sides only, so it makes 8 to 15 but not 15 to 30. Here plain bilinear interpolation (torch's,
  align_corners=False) to the sides of the encoder level, which nothing can learn.
- Downsampled images are bilinear as printed, without smoothing.
- ResNet-50: MONAI's bottleneck has the stride in the 3x3 convolution, the layout cited by the paper in the first 1x1.
  Shapes and number of parameters are the same.
- Convolution bias before BN: not printed, left out.

Not as printed (conf/model/residual_encoder.yaml; "What is not as printed" in models/README.md): slices are drawn within
the box around the brain and with replacement, histograms are matched within a site, the output bias is set by `prior`
(no initialisation is printed). The small variant has half of its slices on tumour.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.resnet import ResNet, ResNetBottleneck
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.prior import set_output_prior

LEVELS = 5  # halvings in the encoder: first convolution, max-pool, three of its four stages


def residual_encoder(
    in_channels: int = 4,
    out_channels: int = 4,
    width: int = 64,
    layers: Sequence[int] = (3, 4, 6, 3),
    prior: float | None = 0.1,
) -> ResidualEncoder:
    """Residual encoder and convolutional decoder; softmax over background, NCR, ED and ET by default.

    Takes float32 [batch, in_channels, A, B] with any sides above 32 and returns logits [batch, out_channels, A, B].
    240x240 becomes 8x8x2048 in the encoder.

    Args:
        in_channels: modalities.
        out_channels: see `fedbrats.tasks.segmentation`.
        width: channels of the first convolution; every other width grows with it.
        layers: bottlenecks of the encoder's four stages.
        prior: probability that the output starts with, see `set_output_prior`.

    Raises:
        ValueError: `width` or `layers` that make no network; in the forward pass, sides that it cannot take.
    """
    # Below 4 a strided 1x1 convolution has fewer than 16 channels, whose backward pass writes past its memory on CPUs
    # with channels last (oneDNN issue 6035, torch 2.13).
    if width < 4:
        raise ValueError(f"model.width={width}: must be 4 or more.")
    if len(layers) != 4 or min(layers) < 1:
        raise ValueError(f"model.layers={list(layers)}: four numbers of 1 or more, one per encoder stage.")
    network = ResidualEncoder(in_channels, out_channels, width, layers)
    set_output_prior(network, out_channels, prior)
    return network


def _encoder(in_channels: int, width: int, layers: Sequence[int]) -> nn.Sequential:
    """ResNet up to the last bottleneck: 49 convolutions with layers (3, 4, 6, 3), shortcuts not counted."""
    resnet = ResNet(
        block=ResNetBottleneck,
        layers=list(layers),
        block_inplanes=[width, 2 * width, 4 * width, 8 * width],
        spatial_dims=2,
        n_input_channels=in_channels,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    )
    stem = (resnet.conv1, resnet.bn1, resnet.act, resnet.maxpool)
    return nn.Sequential(*stem, resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)


class Bilinear(nn.Module):
    """Bilinear interpolation to given sides, without weights."""

    def forward(self, features: Tensor, sides: Sequence[int]) -> Tensor:
        """Features [batch, channels, ...] to [batch, channels, *sides]."""
        return interpolate(features, size=list(sides), mode="bilinear", align_corners=False)


class DecoderLevel(nn.Module):
    """One block of Table 1: upsample, concatenate the image, two convolutions."""

    def __init__(self, inputs: int, image_channels: int, width: int, scores: int | None = None) -> None:
        """`scores`: the second convolution makes so many class scores and has no BN and ReLU."""
        super().__init__()
        self.upsample = Bilinear()
        self.conv_a = _conv(inputs + image_channels, width)
        self.conv_b = _conv(width, width) if scores is None else nn.Conv2d(width, scores, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Features of the level below and the image [batch, channels, A, B] to [batch, width or scores, A, B]."""
        joined = torch.cat([self.upsample(features, image.shape[2:]), image], dim=1)
        return self.conv_b(self.conv_a(joined))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ResidualEncoder(nn.Module):
    """The network behind `residual_encoder`."""

    def __init__(self, in_channels: int, out_channels: int, width: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder = _encoder(in_channels, width, layers)
        self.shrink = Bilinear()
        self.decoder = nn.ModuleList()  # deepest level first
        inputs = 32 * width
        for level in reversed(range(LEVELS)):
            outputs = width * 2**level
            scores = None if level else out_channels
            self.decoder.append(DecoderLevel(inputs, in_channels, outputs, scores))
            inputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images float32 [batch, in_channels, A, B], same sides.

        Raises:
            ValueError: a side of 32 or less, of which the encoder would leave one pixel.
        """
        sides = list(images.shape[2:])
        if min(sides) <= 2**LEVELS:
            raise ValueError(
                f"input sides {sides}: sides must be larger than {2**LEVELS}, or one pixel is left in the encoder, too "
                "few for its norm; set train.patch / inference.window."
            )
        pyramid = [images]  # sides of each encoder level but the last: 240, 120, 60, 30, 15
        for _ in range(LEVELS - 1):
            sides = [(side + 1) // 2 for side in sides]  # a strided layer keeps the odd pixel
            pyramid.append(self.shrink(images, sides))
        features = self.encoder(images)
        for level in self.decoder:
            features = level(features, pyramid.pop())
        return features

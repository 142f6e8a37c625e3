"""CNN on the median slice of FLAIR ("median cross section", BrainLes 2021), a small classifier.

Section 3.1: "two convolutional layers, two max pooling layers, and three linear (fully-connected) layers", valid
padding, "a modification of the architecture presented by PyTorch". The widths stand in figures; these are those of
PyTorch's tutorial: 5x5 convolutions of 6 and 16 channels, dense layers of 120 and 84.

Where the print was not followed:

- Outputs: ten for two labels, which "the authors note" should have been two (section 4.3). A softmax over two is a
  sigmoid of one, which is here.
- "ReLU ... to each layer, including the output layer" (section 3.2): not on the output, where no case could be said to
  be less likely than one half.
- Input: a grey slice as a colour image (section 2). Its three channels are equal, so one stands for them.

Not as printed: conf/model/median_slice_cnn.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fedbrats.models.blocks import start_at_half
from fedbrats.models.sides import check_exact_sides

KERNEL = 5


def median_slice_cnn(
    in_channels: int = 4,
    out_channels: int = 1,
    sides: Sequence[int] = (224, 224),
    channels: Sequence[int] = (6, 16),
    dense: Sequence[int] = (120, 84),
) -> MedianSliceCNN:
    """The seven layers, for slices of the given sides.

    Takes float [batch, in_channels, *sides] and returns logits [batch, out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        sides: of a slice in pixels; the first dense layer depends on them.
        channels: of the convolutions.
        dense: widths of the dense layers before the last.

    Raises:
        ValueError: sides too small for the convolutions; in the forward pass, other sides.
    """
    return MedianSliceCNN(in_channels, out_channels, sides, channels, dense)


class MedianSliceCNN(nn.Module):
    """The network behind `median_slice_cnn`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sides: Sequence[int],
        channels: Sequence[int],
        dense: Sequence[int],
    ) -> None:
        super().__init__()
        self.sides, left = list(sides), list(sides)
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(before, after, KERNEL), nn.ReLU(), nn.MaxPool2d(2)]
            left = [(side - KERNEL + 1) // 2 for side in left]
        if min(left) < 1:
            raise ValueError(
                f"model.sides={self.sides}: nothing is left after {len(channels)} convolutions of {KERNEL} pixels and "
                "as many poolings; set a larger model.input.patch."
            )
        layers.append(nn.Flatten())
        widths = [channels[-1] * left[0] * left[1], *dense]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(widths[-1], out_channels)
        start_at_half(self.last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: other sides than the network was made for.
        """
        check_exact_sides(images, self.sides)
        return self.last(self.layers(images))

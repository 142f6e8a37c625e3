"""2D non-local Mask R-CNN (Dai et al., BrainLes 2021): boxes around the whole tumour of a slice, and a mask in each.

"Non-local Mask R-CNN", sections 2.2 to 2.4, Equations 1 to 4, Figure 2, for axial slices. A ResNet-101 with a feature
pyramid reads the slice; a region proposal network (RPN) says where in it objects may be; the features of each proposal
are read by RoIAlign, and a head says whether it is tumour and moves its box, another draws its mask. That is He et al.
(ICCV 2017), and what the paper does not print is his or Ren's (Faster R-CNN, 2015), or Lin's (focal loss, 2017).

The paper has objects of three classes, WT, ET and NCR & NET; this network has WT, so it has one output, the logits of
the whole tumour. A pixel's probability is Equation 4 for one set of images: that of the mask times the score of its
box, the largest where boxes overlap. Mirrored slices are averaged as for every network (`inference.flips`).

In training it returns those logits and, in place of a number, what it has said of anchors and proposals: given the
labels it is the loss (`detection_loss.py`). Objects are the connected parts of the tumour in the slice. Proposals come
from the slice alone, so the true boxes are never among them, and none is drawn: all anchors and proposals count, which
is what the focal loss is for.

Printed and chosen:

- Non-local network (Equations 1 and 2): theta, phi, g and f are 1x1 convolutions, of 4 channels here; I is the slice at
  128x128 pixels. The softmax is "along both dimension i and j", so all N x N weights have the sum 1 and a row of them
  1/N: A would be 1/16384 of an image. Here their sum is N, so a row has 1 on average, as with the softmax of [14].
  "The original input size of 128x128x4" contradicts the 256x256x4 of section 2.1; I' and A have the size of the slice.
- A is resized and joined to each level of the pyramid (F1 to F4, of 1/4 to 1/32 of the sides), "concatenated".
- The focal loss has a gamma that is not printed: Lin's 2. It is divided by the number of positive anchors, or
  proposals, of the slice (Lin, section 4.1), and there is no alpha, as in Equation 3.
- Anchors (not printed) of 16 to 128 pixels, one size for a level, three ratios: the slice has about a third of the
  sides that He's images have. He's 1000 proposals are for 80 classes in such images; here 128, and 8 boxes at the end.
- Heads: two dense layers, four convolutions (He, Figure 4, right). Threshold 0.7 for proposals, 0.3 for boxes.
- BatchNorm in the ResNet alone, as in MONAI's, which is this one; its weights are drawn, nothing is said of others.

Not as printed: conf/model/mask_rcnn.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fedbrats.models.boxes import anchors, best, decode, paste, roi_align
from fedbrats.models.detection_loss import DetectionLoss
from fedbrats.models.prior import prior_bias
from fedbrats.models.sides import check_sides

MULTIPLE = 32  # of the sides
RATIOS = (0.5, 1.0, 2.0)
CELLS = 14  # of a box in a row, for the masks; half as many for the scores
PROPOSALS_APART, BOXES_APART = 0.7, 0.3  # most that two may overlap
AMONG = 4  # times as many proposals as are kept are looked at
FLOOR = 1e-3  # probability where there is no box


@dataclass(frozen=True)
class Choice:
    """Which boxes are looked at, and what a wrong score costs; the meaning is that of the arguments of `mask_rcnn`."""

    anchor_sizes: Sequence[float]
    proposals: int
    boxes: int
    gamma: float

    def __post_init__(self) -> None:
        """Raise ValueError for values that choose nothing."""
        sizes = list(self.anchor_sizes)
        if len(sizes) != 4 or sizes[0] <= 0 or any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(
                f"model.anchor_sizes={sizes}: four, one for each level, positive and increasing."
            )
        for key, value in (("proposals", self.proposals), ("boxes", self.boxes)):
            if value < 1:
                raise ValueError(f"model.{key}={value}: must be 1 or more.")
        if self.gamma != 0 and self.gamma < 1:
            raise ValueError(f"model.gamma={self.gamma}: 0, or 1 or more.")


def mask_rcnn(
    in_channels: int = 4,
    block: str = "bottleneck",
    layers: Sequence[int] = (3, 4, 23, 3),
    channels: Sequence[int] = (64, 128, 256, 512),
    pyramid: int = 256,
    dense: int = 1024,
    attention: int = 128,
    anchor_sizes: Sequence[float] = (16, 32, 64, 128),
    proposals: int = 128,
    boxes: int = 8,
    gamma: float = 2.0,
    prior: float = 0.1,
) -> MaskRCNN:
    """2D non-local Mask R-CNN; one sigmoid output, the whole tumour.

    Takes float32 [batch, in_channels, A, B] with sides that are multiples of 32 and returns logits [batch, 1, A, B]; in
    training a list of them and of a function that gives the loss float32 [batch] for labels uint8 [batch, ...].

    Args:
        in_channels: modalities.
        block: of the ResNet, bottleneck or basic.
        layers: blocks of each of its four stages; the default is ResNet-101.
        channels: of the stages, before the factor 4 of a bottleneck.
        pyramid: channels of each level.
        dense: width of the dense layers that score a box.
        attention: sides in pixels at which the non-local network works, whose memory grows with the fourth power.
        anchor_sizes: root of the area of the anchors of each level, in pixels, increasing.
        proposals: boxes of a slice that are scored.
        boxes: of a slice whose masks make the output.
        gamma: of the focal loss, 0 for cross-entropy.
        prior: probability of tumour that anchors and boxes start with (Lin et al., section 4.1).

    Raises:
        ValueError: settings that make no network; in the forward pass, sides that it cannot take.
    """
    if block not in ("bottleneck", "basic"):
        raise ValueError(f"model.block={block}: choose bottleneck or basic.")
    if not len(layers) == len(channels) == 4 or min(*layers, *channels) < 1:
        raise ValueError(
            f"model.layers={list(layers)}, model.channels={list(channels)}: four of each, one a stage, 1 or more."
        )
    if attention < 1:
        raise ValueError(f"model.attention={attention}: must be 1 or more.")
    choice = Choice(tuple(anchor_sizes), proposals, boxes, gamma)
    resnet = ResNet(block, list(layers), list(channels), 2, in_channels, conv1_t_stride=2, feed_forward=False)
    widths = [width * (4 if block == "bottleneck" else 1) for width in channels]
    network = MaskRCNN(resnet, widths, in_channels, pyramid, dense, attention, choice)
    bias = prior_bias(1, prior)
    with torch.no_grad():
        for scores in (network.rpn.scores, network.head.score):
            assert scores.bias is not None
            scores.bias.copy_(bias.expand_as(scores.bias))
    return network


def resized(images: Tensor, sides: Sequence[int]) -> Tensor:
    """Images [batch, channels, A, B] at other `sides`, bilinear."""
    return interpolate(images, tuple(sides), mode="bilinear", align_corners=False)


class NonLocal(nn.Module):
    """Every pixel as a mean of all others, weighted by how alike they are (Figure 2B)."""

    def __init__(self, channels: int, side: int) -> None:
        """`side` in pixels at which it works."""
        super().__init__()
        self.theta, self.phi, self.g, self.f = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """A of Equation 2, of the shape of `images` [batch, channels, A, B]."""
        small = resized(images, (self.side, self.side))
        theta, phi, g = (layer(small).flatten(2) for layer in (self.theta, self.phi, self.g))
        alike = theta.transpose(1, 2) @ phi  # [batch, N, N]
        weights = alike.flatten(1).softmax(1).reshape(alike.shape) * alike.shape[1]
        attended = self.f((weights @ g.transpose(1, 2)).transpose(1, 2).reshape(small.shape))
        return resized(attended, images.shape[2:])


class RPN(nn.Module):
    """Which anchors are near an object, and the way to it, from the features of one level."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, width, 3, padding=1)
        self.scores = nn.Conv2d(width, len(RATIOS), 1)
        self.offsets = nn.Conv2d(width, 4 * len(RATIOS), 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [batch, M] and offsets [batch, M, 4], M anchors in the order of `boxes.anchors`."""
        features = self.layer(features).relu()
        scores, offsets = (layer(features).movedim(1, -1) for layer in (self.scores, self.offsets))
        return scores.flatten(1), offsets.reshape(len(features), -1, 4)


class BoxHead(nn.Module):
    """Whether a box holds tumour, and the way to it."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        flat = inputs * (CELLS // 2) ** 2
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(flat, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        )
        self.offsets, self.score = nn.Linear(width, 4), nn.Linear(width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [boxes] and offsets [boxes, 4] of features [boxes, inputs, CELLS, CELLS]."""
        found = self.layers(avg_pool2d(features, 2))
        return self.score(found).squeeze(1), self.offsets(found)


def mask_head(inputs: int, width: int) -> nn.Sequential:
    """Logits [boxes, 1, 28, 28] of features [boxes, inputs, 14, 14]."""
    layers: list[nn.Module] = []
    for before in (inputs, width, width, width):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, width, 2, 2), nn.ReLU(), nn.Conv2d(width, 1, 1))


class MaskRCNN(nn.Module):
    """The network behind `mask_rcnn`."""

    def __init__(
        self,
        resnet: ResNet,
        widths: Sequence[int],
        in_channels: int,
        pyramid: int,
        dense: int,
        attention: int,
        choice: Choice,
    ) -> None:
        """`widths` of the stages of `resnet`; the rest as in `mask_rcnn`."""
        super().__init__()
        self.nonlocal_ = NonLocal(in_channels, attention)
        self.resnet, self.fpn = resnet, FeaturePyramidNetwork(2, list(widths), pyramid)
        inputs = pyramid + in_channels
        self.rpn, self.head = RPN(inputs, pyramid), BoxHead(inputs, dense)
        self.mask = mask_head(inputs, pyramid)
        self.choice = choice

    def forward(self, images: Tensor) -> Tensor | list[Tensor | Callable[[Tensor], Tensor]]:
        """Logits of `images`; in training a list of them and of the loss as a function of the labels.

        Raises:
            ValueError: sides that the stages do not halve exactly.
        """
        check_sides(images, MULTIPLE)
        sides, choice = tuple(images.shape[2:]), self.choice
        maps = self._maps(images)
        objectness, offsets = (
            torch.cat(found, 1).float() for found in zip(*map(self.rpn, maps), strict=True)
        )
        grids = [features.shape[2:] for features in maps]
        around = anchors(grids, sides, choice.anchor_sizes, RATIOS).to(images.device)
        found = decode(offsets.detach(), around, sides)
        among = AMONG * choice.proposals
        found, ranks = best(found, objectness.detach(), choice.proposals, PROPOSALS_APART, among)
        features = roi_align(maps, found, sides, choice.anchor_sizes, CELLS)
        scores, refined = (part.float().unflatten(0, ranks.shape) for part in self.head(features))
        logits = self._logits(maps, decode(refined.detach(), found, sides), scores, ranks, sides)
        if not self.training:
            return logits
        masks = self.mask(features).float().squeeze(1).unflatten(0, ranks.shape)
        loss = DetectionLoss(
            *(sides, around, objectness, offsets, found, ranks, scores, refined, masks, choice.gamma)
        )
        return [logits, loss]

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The levels of the pyramid, finest first, each with A beside its features (Figure 2A)."""
        attended, net = self.nonlocal_(images), self.resnet
        features = net.maxpool(net.act(net.bn1(net.conv1(images + attended))))
        stages: OrderedDict[str, Tensor] = OrderedDict()
        for name in ("layer1", "layer2", "layer3", "layer4"):
            features = stages[name] = getattr(net, name)(features)
        levels = self.fpn(stages).values()
        return [torch.cat([level, resized(attended, level.shape[2:])], 1) for level in levels]

    def _logits(
        self, maps: Sequence[Tensor], found: Tensor, scores: Tensor, ranks: Tensor, sides: Sequence[int]
    ) -> Tensor:
        """Logits [batch, 1, A, B] of the masks of the best boxes, each times the score of its box."""
        scores = scores.sigmoid() * ranks.isfinite()  # places that no proposal has taken
        found, scores = best(found, scores, self.choice.boxes, BOXES_APART, self.choice.proposals)
        masks = self.mask(roi_align(maps, found, sides, self.choice.anchor_sizes, CELLS)).float().sigmoid()
        pasted = paste(masks.squeeze(1).unflatten(0, scores.shape), found, sides)
        likely = pasted * scores.clamp_min(0)[..., None, None]
        return likely.amax(1, keepdim=True).logit(FLOOR)

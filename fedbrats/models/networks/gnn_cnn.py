"""Joint GNN-CNN (BrainLes 2021): a graph network on supervoxels, whose logits a small CNN refines."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, relu

from fedbrats.losses.nodes import OUTSIDE, with_numbers
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides
from fedbrats.models.supervoxels import QUANTILES, neighbours, quantiles, supervoxels
from fedbrats.tasks.segmentation import CLASS

BACKGROUND = (1.0, -1.0, -1.0, -1.0)  # logits of the voxels that are in no supervoxel
MARGIN = 1  # voxels around the predicted tumour that the CNN refines


def gnn_cnn(
    in_channels: int = 4,
    out_channels: int = CLASS,
    layers: int = 6,
    width: int = 256,
    filters: int = 16,
    kernel: int = 5,
    cell: int = 6,
    compactness: float = 0.5,
    rounds: int = 10,
    prior: float | None = 0.1,
) -> GNNCNN:
    """Joint graph and image convolution of the paper, sections 2.1 to 2.4, 3.1 and Figure 2.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of `cell` and returns logits [batch, 4, X, Y,
    Z]. In training, a list of these and of what `losses.nodes.WithNodes` reads of the supervoxels. Each half has its
    own loss: the CNN sees the logits of the graph without their gradient, and nothing of its loss comes back to the
    graph.

    Printed and chosen:

    - Supervoxels (section 2.1): SLIC on all modalities, compactness 0.5, 15,000 of them in the box around a brain,
      which is cells of 6x6x6 voxels. They are worked out in each forward pass, without a gradient and without chance,
      by `models.supervoxels`; a patch has its own. Those outside of the brain are left out: here only voxels of the
      brain (any modality not 0) are in one, and the others have the logits of the release, 1 for background and -1.
    - Graph (section 2.1): "quintiles" of each modality; those of the release, the 10th, 25th, 50th, 75th and 90th
      percentile. A supervoxel's neighbours are those that touch it by a face.
    - Layers (Equation 1, section 3.1): six GraphSAGE-pool layers of 256, and as in the release one more that gives
      the logits, without ReLU. W_pool cannot be "global", as the first layer has 20 features: each layer has its own,
      of the width that it gets.
    - CNN (section 2.3): 5x5x5 convolutions to 16 and 4 channels, ReLU between; replicated edges, as in the release.
    - Crop (section 2.3): the box around the tumour that the graph predicts, and a voxel more, as in the release. The
      CNN runs everywhere, but its logits count only within; so all patches of a batch have the same sides.
    - Initialisation: not printed. PyTorch's, and `prior`.
    - Training: the paper trains the graph, then the CNN, "to decrease training time"; here both at once.

    Not as printed: conf/model/gnn_cnn.yaml and "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: 4, as a supervoxel has one label.
        layers: of the graph, without the one of the output.
        width: of these.
        filters: of the first convolution.
        kernel: side of both kernels, odd.
        cell: voxels between two seeds.
        compactness: of SLIC.
        rounds: of SLIC.
        prior: probability of tumour that the output of the CNN starts with.

    Raises:
        ValueError: another `out_channels`, an even `kernel`, a number that is not positive, or a bad `prior`; in the
            forward pass, sides that are no multiples of `cell`.
    """
    if out_channels != CLASS:
        raise ValueError(
            f"model.out_channels={out_channels}: must be {CLASS}, as a supervoxel has one label."
        )
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"model.kernel={kernel}: must be odd.")
    for key, number in (
        *(("layers", layers), ("width", width), ("filters", filters), ("cell", cell)),
        *(("compactness", compactness), ("rounds", rounds)),
    ):
        if not number > 0:
            raise ValueError(f"model.{key}={number}: must be positive.")
    graph = Graph([in_channels * len(QUANTILES), *[width] * layers, CLASS])
    refine = nn.Sequential(
        nn.Conv3d(CLASS + in_channels, filters, kernel, padding=kernel // 2, padding_mode="replicate"),
        nn.ReLU(),
        nn.Conv3d(filters, CLASS, kernel, padding=kernel // 2, padding_mode="replicate"),
    )
    network = GNNCNN(graph, refine, cell, compactness, rounds)
    set_output_prior(network, CLASS, prior)
    return network


class SagePool(nn.Module):
    """A GraphSAGE layer with pooling (Hamilton et al., NeurIPS 2017; Equation 1), without the ReLU after it."""

    def __init__(self, before: int, width: int) -> None:
        """From `before` to `width` features."""
        super().__init__()
        self.pool, self.join = nn.Linear(before, before), nn.Linear(2 * before, width)

    def forward(self, nodes: Tensor, near: Tensor) -> Tensor:
        """Features [B, n, before] to [B, n, width]; `near` are the neighbours of each, int64 [B, n, K], n for none."""
        messages = relu(self.pool(nodes))
        messages = torch.cat(
            [messages, torch.zeros_like(messages[:, :1])], 1
        )  # none says 0, the least there is
        with torch.no_grad():  # autograd then keeps where the largest are, not what all K say
            rows = near.flatten(1).unsqueeze(-1).expand(-1, -1, messages.shape[2])
            largest = messages.gather(1, rows).unflatten(1, near.shape[1:]).max(2).indices
            source = near.gather(2, largest)
        return self.join(torch.cat([nodes, messages.gather(1, source)], -1))


class Graph(nn.Module):
    """GraphSAGE layers with ReLU between."""

    def __init__(self, widths: list[int]) -> None:
        """`widths` of the features, from the input to the logits."""
        super().__init__()
        self.layers = nn.ModuleList(SagePool(i, o) for i, o in pairwise(widths))

    def forward(self, nodes: Tensor, near: Tensor) -> Tensor:
        """Logits of the nodes, [B, n, 4]; arguments as of `SagePool`."""
        for index, layer in enumerate(self.layers):
            nodes = layer(relu(nodes) if index else nodes, near)
        return nodes


class GNNCNN(nn.Module):
    """The network behind `gnn_cnn`."""

    def __init__(
        self, graph: Graph, refine: nn.Sequential, cell: int, compactness: float, rounds: int
    ) -> None:
        """Arguments as in `gnn_cnn`."""
        super().__init__()
        self.graph, self.refine = graph, refine
        self.cell, self.compactness, self.rounds = cell, compactness, rounds

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; in training a list of them and of what the loss needs of the supervoxels.

        Raises:
            ValueError: sides that are no multiples of the cell.
        """
        check_sides(images, self.cell)
        brain = (images != 0).any(1)
        coarse, owner = self.of_supervoxels(images, brain)
        given = coarse.detach()
        refined = self.refine(torch.cat([given.to(images.dtype), images], 1))
        logits = torch.where(box(given.argmax(1) != 0).unsqueeze(1), refined, given.to(refined.dtype))
        if self.training:
            return [logits, with_numbers(coarse, owner.masked_fill(~brain, OUTSIDE))]
        return logits

    def of_supervoxels(self, images: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the graph for each voxel [B, 4, X, Y, Z], and the number of its supervoxel [B, X, Y, Z].

        `brain` is a mask, bool [B, X, Y, Z].
        """
        grid = [side // self.cell for side in images.shape[2:]]
        with torch.no_grad():
            owner = supervoxels(images, brain, self.cell, self.compactness, self.rounds)
            near = neighbours(owner, grid)
        nodes = self.graph(quantiles(images, owner, prod(grid)), near)
        nodes = torch.cat([nodes, nodes.new_tensor(BACKGROUND).expand(len(nodes), 1, -1)], 1)
        voxels = nodes.gather(1, owner.flatten(1).unsqueeze(-1).expand(-1, -1, CLASS))
        return voxels.transpose(1, 2).reshape(len(images), CLASS, *images.shape[2:]), owner


def box(tumour: Tensor) -> Tensor:
    """The box around `tumour` of each sample and `MARGIN` voxels more, bool [B, X, Y, Z] both."""
    found = torch.ones_like(tumour)
    for axis in (1, 2, 3):
        others = [other for other in (1, 2, 3) if other != axis]
        line = tumour.float().amax(others)
        line = max_pool1d(line.unsqueeze(1), 2 * MARGIN + 1, 1, MARGIN).squeeze(1)
        span = line.cummax(1).values * line.flip(1).cummax(1).values.flip(1)
        found &= span.bool().reshape(len(span), *(-1 if other == axis else 1 for other in (1, 2, 3)))
    return found

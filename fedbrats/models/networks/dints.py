"""The network of DiNTS topology search (BrainLes 2021), with a topology of your own or one that stands in for it.

Milesi et al., "Brain tumor segmentation using neural network topology search", sections 2.3 and 3.1,
Figures 2 and 3. The search itself (1,750 GPU hours) is not here; MONAI's `DiNTS` and `TopologyInstance` are the
network.

What is missing: the five selected topologies, one for each fold. Only that of fold 0 is shown, as the numbers on the
edges of Figure 3, which cannot be read from the text; none is printed as a table, and no release of them is named. What
the text says of them: multi-path and dense, a mixture of all five operations, two horizontal pathways along the largest
and the smallest scale, about a quarter of the 120 cells pruned, no clear encoder and decoder. No count of parameters is
printed.

In its place stands `stand_in()`: a regular topology that has exactly that and that nobody has searched. Its Dice says
nothing about the paper's. Whoever has a searched topology gives it as `model.arch_code`.

Where the print is silent:

- Channels: "the stem cell at scale 1" has 32 when retrained, doubled "each time the spatial size was decreased by
  half": MONAI's `channel_mul=1`, 64 at half size to 512 at a sixteenth.
- Pseudo-3D: "3x3x1" is a 3x3x1 and a 1x1x3 convolution, without a norm between them, as in MONAI.
- Brain mask (section 2.2), the fifth channel: the network makes it, of the modalities that it sees.
- Output: "the class with the highest probability is picked for each voxel" (section 2.3), but trained on "the nested
  classes used for evaluation", which exclude no other. Here they are three sigmoids, and what lies inside stands.

Not as printed: conf/model/dints.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from monai.networks.nets.dints import DiNTS, TopologyInstance
from torch import Tensor, nn

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

SCALES, OPERATIONS = 4, 5
EDGES = 3 * SCALES - 2  # of a layer: to the same scale, to the next larger and to the next smaller one
MULTIPLE = 2**SCALES  # one voxel at the smallest scale
KEPT = (0, EDGES - 1)  # edges along the largest and the smallest scale
PRUNED = 0.25  # "around 25%" (section 3.1)

Matrix = Sequence[Sequence[int]]


def dints(
    in_channels: int = 4,
    out_channels: int = 3,
    channel_mul: float = 1.0,
    layers: int = 12,
    arch_code: Sequence[Matrix] | None = None,
    prior: float | None = 0.1,
) -> DiNTSWithMask:
    """A network of the search space of DiNTS: layers at four scales, the nested regions as sigmoids.

    Takes float32 [batch, in_channels, X, Y, Z] with sides that are multiples of 16, background exactly 0, and returns
    logits [batch, out_channels, X, Y, Z].

    Args:
        in_channels: modalities, without the mask.
        out_channels: see `tasks.segmentation`.
        channel_mul: of the 32 channels of the stem, a multiple of 1/4.
        layers: of the search space, 12 in print; as many as `arch_code` has rows.
        arch_code: two matrices, as MONAI's `TopologySearch.decode` gives them: whether an edge is there, 0 or 1, and
            its operation (0 none, 1 3x3x3, 2 3x3x1, 3 3x1x3, 4 1x3x3), each a row for every layer, the edges of a layer
            in MONAI's order (`arch_code2in`, `arch_code2out`). None is `stand_in()`.
        prior: probability that every output starts with.

    Raises:
        ValueError: settings that make no network; in the forward pass, sides that it cannot take.
    """
    # Strided 1x1x1 convolutions with fewer than 16 channels write past their memory on CPUs with channels last
    # (oneDNN issue 6035, torch 2.13).
    if channel_mul <= 0 or channel_mul * 4 != int(channel_mul * 4):
        raise ValueError(f"model.channel_mul={channel_mul}: must be a multiple of 0.25.")
    if layers < 1:
        raise ValueError(f"model.layers={layers}: must be 1 or more.")
    active, operations = stand_in(layers) if arch_code is None else checked_code(arch_code, layers)
    with contextlib.redirect_stdout(io.StringIO()):  # MONAI prints which sides it likes
        space = TopologyInstance(
            arch_code=[active, operations],
            channel_mul=channel_mul,
            num_blocks=layers,
            num_depths=SCALES,
            use_downsample=True,
        )
    network = DiNTSWithMask(space, in_channels, out_channels, nodes_of(active))
    set_output_prior(network.dints.stem_finals, out_channels, prior)
    return network


def stand_in(layers: int) -> tuple[np.ndarray, np.ndarray]:
    """A topology with all that is printed of the searched ones, for `arch_code`: int64 [layers, 10], twice.

    A quarter of the edges is pruned, 30 of 120, evenly among those other than the two horizontal pathways; no scale is
    cut off. The operations take turns, over the edges of a layer and from layer to layer, so all are as frequent before
    pruning.
    """
    active = np.ones((layers, EDGES), np.int64)
    others = [(layer, edge) for layer in range(layers) for edge in range(EDGES) if edge not in KEPT]
    pruned = int(PRUNED * layers * EDGES)
    for index in range(pruned):
        active[others[index * len(others) // pruned]] = 0
    operations = np.add.outer(np.arange(layers), np.arange(EDGES)) % OPERATIONS
    return active, operations


def checked_code(arch_code: Sequence[Matrix], layers: int) -> tuple[np.ndarray, np.ndarray]:
    """`arch_code` as arrays int64 [layers, 10], twice.

    Raises:
        ValueError: it is no topology of so many layers.
    """
    says = f"model.arch_code: two matrices of {layers} rows (model.layers) and {EDGES} columns, "
    try:
        found = [np.array([list(row) for row in matrix], float) for matrix in arch_code]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{says}of numbers ({error}).") from error
    if [matrix.shape for matrix in found] != [(layers, EDGES)] * 2:
        raise ValueError(f"{says}not {[list(matrix.shape) for matrix in found]}.")
    if not np.isin(found[0], (0, 1)).all():
        raise ValueError(f"{says}the first of 0 and 1: whether an edge is there.")
    if not np.isin(found[1], range(OPERATIONS)).all():
        raise ValueError(f"{says}the second of 0 to {OPERATIONS - 1}: the operation of an edge.")
    active, operations = (matrix.astype(np.int64) for matrix in found)
    reached, left = _ends(active)
    loose = (reached[:-1] != left[1:]).any(1)
    if loose.any():
        raise ValueError(
            f"model.arch_code: after layer {int(loose.argmax()) + 1} a scale is reached that no edge leaves, or left "
            "without being reached."
        )
    if not active.any(1).all():
        raise ValueError("model.arch_code: a layer without an edge.")
    return active, operations


def _ends(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each layer: the scales that its edges reach, and those that they come from, bool [layers, 4] each."""
    reached, left = np.zeros((2, len(active), SCALES), bool)
    for edge in range(EDGES):
        scale, step = divmod(edge + 1, 3)  # edges are sorted by the scale that they reach
        reached[:, scale] |= active[:, edge] == 1
        left[:, scale + step - 1] |= active[:, edge] == 1
    return reached, left


def nodes_of(active: np.ndarray) -> np.ndarray:
    """Which scales are in use before the first layer and after each one, as MONAI's `node_a`: int64 [layers + 1, 4]."""
    reached, left = _ends(active)
    return np.concatenate([left[:1], reached]).astype(np.int64)


class DiNTSWithMask(nn.Module):
    """MONAI's `DiNTS` on the modalities and the mask of the brain."""

    def __init__(
        self, space: TopologyInstance, in_channels: int, out_channels: int, nodes: np.ndarray
    ) -> None:
        super().__init__()
        # Plain numbers: MONAI asks a tensor for each edge, which cannot be traced on its way to ONNX.
        space.arch_code_a = space.arch_code_a.numpy()
        self.dints = DiNTS(space, in_channels + 1, out_channels, use_downsample=True, node_a=nodes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, MULTIPLE, instance_norm=True)
        mask = (images != 0).any(1, keepdim=True).to(images.dtype)
        return self.dints(torch.cat([images, mask], dim=1))

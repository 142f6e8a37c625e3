"""Feature-enhanced autoencoder of voxels, trained without labels (glioblastoma sub-regions, BrainLes 2021)."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

HIDDEN = 10  # nodes (section 2.5)


class FeatureAutoencoder(nn.Module):
    """FAE of the paper on tumour sub-regions by Bayesian optimisation (BrainLes 2021), section 2.1 and Figure 1(B).

    Takes float [n, M], the M modalities of n voxels in [-1, 1]. Each of the W = M (M - 1) / 2 pairs of modalities has
    an encoder of its own; what they say of a voxel, W numbers, becomes M latent numbers and W numbers again. From
    these the pairs are decoded one by one, and all modalities at once by one layer more ("dual decoding").

    Printed: the pairs, M latent numbers, one hidden layer of 10 nodes in every encoder and decoder, the layer of all
    modalities, tanh "for all layers". Chosen: one number for each pair, as the latent layer is said to reduce "the
    dimensionality from W to M"; one linear layer each from W to M and from M to W. 584 parameters for four modalities,
    285 for the paper's three.
    """

    def __init__(self, modalities: int = 4, hidden: int = HIDDEN) -> None:
        """M and the nodes of each hidden layer.

        Raises:
            ValueError: fewer than two modalities or no hidden node.
        """
        super().__init__()
        if modalities < 2 or hidden < 1:
            raise ValueError(
                f"modalities={modalities}, hidden={hidden}: two modalities and one node at least."
            )
        self.pairs = list(combinations(range(modalities), 2))
        wide = len(self.pairs)
        self.encoders = _hidden_layer(wide, 2, hidden, 1)
        self.narrow = nn.Sequential(nn.Linear(wide, modalities), nn.Tanh())
        self.widen = nn.Sequential(nn.Linear(modalities, wide), nn.Tanh())
        self.decoders = _hidden_layer(wide, 1, hidden, 2)
        self.whole = nn.Sequential(nn.Linear(wide, modalities), nn.Tanh())

    def encode(self, values: Tensor) -> Tensor:
        """The latent numbers [n, M] of voxels [n, M], in (-1, 1)."""
        told = self.encoders(self._paired(values).transpose(0, 1))  # [W, n, 1]
        latent: Tensor = self.narrow(told.squeeze(2).T)
        return latent

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Every pair as its decoder has it [n, W, 2], and all modalities as the last layer has them [n, M]."""
        wide = self.widen(self.encode(values))
        return self.decoders(wide.T.unsqueeze(2)).transpose(0, 1), self.whole(wide)

    def errors(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error of the pairs and of all modalities at once, two scalars."""
        pairs, whole = self(values)
        return (pairs - self._paired(values)).square().mean(), (whole - values).square().mean()

    def _paired(self, values: Tensor) -> Tensor:
        """The pairs of modalities, [n, W, 2]."""
        return values[:, torch.tensor(self.pairs)]


class LayerOfEach(nn.Module):
    """A linear layer of its own for every pair, [W, n, before] to [W, n, after], that starts as `nn.Linear` does."""

    def __init__(self, pairs: int, before: int, after: int) -> None:
        """W and the nodes before and after."""
        super().__init__()
        bound = before**-0.5
        self.weight = nn.Parameter(torch.empty(pairs, before, after).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(pairs, 1, after).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        """Each pair's values by its own layer."""
        return torch.baddbmm(self.bias, values, self.weight)


def _hidden_layer(pairs: int, before: int, hidden: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        LayerOfEach(pairs, before, hidden), nn.Tanh(), LayerOfEach(pairs, hidden, after), nn.Tanh()
    )

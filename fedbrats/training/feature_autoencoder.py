"""The feature-enhanced autoencoder trained by federated averaging, without labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.models.feature_autoencoder import HIDDEN, FeatureAutoencoder
from fedbrats.seeding import generator, seed_torch


@dataclass(frozen=True)
class Schedule:
    """How it is trained; only Adam and the mean squared error are printed, so all but `hidden` is chosen."""

    rounds: int = 20
    local_steps: int = 10  # of a site in a round
    batch: int = 1024  # voxels
    lr: float = 0.01
    hidden: int = HIDDEN


def train_averaged(
    voxels: Mapping[str, np.ndarray], weights: Mapping[str, int], schedule: Schedule, seed: int
) -> FeatureAutoencoder:
    """Train on the voxels of sites; what leaves a site is its parameters after every round.

    Section 2.1: the encoders are amended by the error of the pairs and that of all modalities "in turns", here one
    step each. Adam begins anew in every round.

    Args:
        voxels: site -> float32 [n, M], n >= 1.
        weights: site -> its cases, by which the mean of the parameters is weighted.
        schedule: of the training.
        seed: alone decides the result on a CPU.

    Raises:
        ValueError: no site, or the training came to numbers that are not finite.
    """
    if not voxels:
        raise ValueError("no site has a voxel to train on")
    tensors = {site: torch.from_numpy(values) for site, values in voxels.items()}
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed, "feature autoencoder")
        network = FeatureAutoencoder(next(iter(voxels.values())).shape[1], schedule.hidden)
    for round_ in range(schedule.rounds):
        mean = WeightedMean()
        for site, values in tensors.items():
            local = copy.deepcopy(network)
            _train(local, values, schedule, generator(seed, "feature autoencoder", site, round_))
            mean.take({name: t.numpy() for name, t in local.state_dict().items()}, float(weights[site]))
        network.load_state_dict(mean.arrays)
    if not all(bool(t.isfinite().all()) for t in network.state_dict().values()):
        raise ValueError(f"lr={schedule.lr}: the training diverged; lower it.")
    return network.eval()


def _train(network: FeatureAutoencoder, values: Tensor, schedule: Schedule, rng: np.random.Generator) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.lr)
    for step in range(schedule.local_steps):
        batch = values[torch.from_numpy(rng.integers(len(values), size=schedule.batch))]
        optimizer.zero_grad(set_to_none=True)
        network.errors(batch)[step % 2].backward()
        optimizer.step()

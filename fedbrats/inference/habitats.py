"""Sub-regions of tumours found without labels for them: one candidate's model of all sites, its losses, its maps.

Glioblastoma sub-regions by a feature-enhanced autoencoder and Bayesian optimisation (BrainLes 2021), Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedbrats.data.cache import CachedCase
from fedbrats.inference.clusters import disagreement, federated_kmeans, nearest
from fedbrats.models.feature_autoencoder import FeatureAutoencoder
from fedbrats.seeding import generator
from fedbrats.training.feature_autoencoder import Schedule, train_averaged

LIMIT = 5.0  # standard deviations; brought to 1, as the last layer is a tanh
VALIDATION = 25 / 82  # of the patients in a shuffle (section 2.5)
CHUNK = 100_000  # voxels through the network at once

Voxels = Mapping[str, np.ndarray]  # by case, float32 [n, M]
Sites = Mapping[str, Sequence[str]]  # the cases of each


@dataclass(frozen=True)
class Habitats:
    """What maps a case: the autoencoder, and centres float [K, M] in its latent space, the largest cluster first."""

    network: FeatureAutoencoder
    centres: np.ndarray

    def of(self, case: CachedCase) -> np.ndarray:
        """Sub-regions uint8 [X, Y, Z] of the crop, 1 to K in the tumour and 0 outside."""
        tumour = np.asarray(case.label) > 0
        labels = np.zeros(tumour.shape, np.uint8)
        labels[tumour] = nearest(encode(self.network, tumour_values(case)), self.centres) + 1
        return labels


def tumour_values(case: CachedCase) -> np.ndarray:
    """The z-scores of the whole tumour's voxels over `LIMIT`, in [-1, 1], float32 [n, 4]; n may be 0.

    How the paper scales its modalities is not printed; what a tanh gives lies between -1 and 1.
    """
    tumour = np.asarray(case.label) > 0
    values = np.asarray(case.image)[:, tumour].T.astype(np.float32)
    return np.ascontiguousarray((values / LIMIT).clip(-1, 1))


def drawn(values: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of the voxels, at random, in their order."""
    if len(values) <= most:
        return values
    return values[np.sort(rng.choice(len(values), most, replace=False))]


def majority(values: np.ndarray, gamma: float) -> np.ndarray:
    """The voxels of a case without its outliers.

    "A quantile threshold that distinguishes outlier data points from the majority" (section 2.4); of what is not
    printed. Here of the distance from the case's mean voxel, so that nothing has to leave a site; outliers are only
    left out of what is learned, they have a sub-region as every voxel.
    """
    apart = np.linalg.norm(values - values.mean(0), axis=1)
    return values[apart <= np.quantile(apart, gamma)]


def encode(network: FeatureAutoencoder, values: np.ndarray) -> np.ndarray:
    """The latent numbers float32 [n, M] of voxels float32 [n, M]."""
    with torch.no_grad():
        parts = [network.encode(part).numpy() for part in torch.from_numpy(values).split(CHUNK)]
    return np.concatenate(parts) if parts else values[:0]


def fit(
    voxels: Voxels, sites: Sites, gamma: float, schedule: Schedule, seed: int
) -> tuple[FeatureAutoencoder, Voxels]:
    """The autoencoder of one gamma, trained by federated averaging, and the voxels that it was trained on."""
    kept = {case: majority(values, gamma) for case, values in voxels.items()}
    gathered = {site: gather(kept, cases) for site, cases in sites.items()}
    counts = {site: len(cases) for site, cases in sites.items()}
    return train_averaged(gathered, counts, schedule, seed), kept


def gather(values: Voxels, cases: Sequence[str]) -> np.ndarray:
    """The voxels of a site's `cases` after each other, [0, M] of none."""
    width = next(iter(values.values())).shape[1]
    return np.concatenate([np.empty((0, width), np.float32), *(values[case] for case in cases)])


def stability_losses(
    values: Voxels, sites: Sites, patients: Mapping[str, str], clusters: int, trials: int, seed: int
) -> list[float]:
    """Ls of equation 1 for each shuffle of the patients into two parts (Figure 1(C)).

    One clustering is of the part that trains and one of the part that validates, and both are compared on the second.
    The shuffles are those of `seed`, the same for every candidate.

    Args:
        values: voxels of the cases, or their latent numbers.
        sites: of these cases.
        patients: case -> patient, whose cases stay together.
        clusters: K of both.
        trials: number of shuffles.
        seed: of shuffles and of starts.

    Raises:
        ValueError: fewer than two patients, or no site with as many voxels as clusters.
    """
    people = sorted({patients[case] for cases in sites.values() for case in cases})
    if len(people) < 2:
        raise ValueError(f"{len(people)} patient to train and validate on: two or more are needed.")
    losses = []
    for trial in range(trials):
        order = generator(seed, "habitats", "shuffle", trial).permutation(len(people))
        validates = {people[i] for i in order[: max(1, round(VALIDATION * len(people)))]}
        first, second = (
            [
                gather(values, [c for c in cases if (patients[c] in validates) is inside])
                for cases in sites.values()
            ]
            for inside in (False, True)
        )
        one, other = (federated_kmeans(part, clusters, seed + trial) for part in (first, second))
        losses.append(disagreement(one, other, second))
    return losses

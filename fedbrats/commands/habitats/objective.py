"""What the search minimises: stability of the sub-regions, and how they tell survival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedbrats.commands.habitats.arguments import HabitatConfig
from fedbrats.data.cache import CachedCase
from fedbrats.data.survival import Survival
from fedbrats.inference.clusters import federated_kmeans
from fedbrats.inference.habitats import Habitats, Sites, Voxels, encode, fit, gather, stability_losses
from fedbrats.metrics.label_texture import label_texture
from fedbrats.metrics.survival import Groups, log_rank, significance_loss, two_groups


@dataclass(frozen=True)
class Grouping:
    """Patients by their sub-regions: the two whose shares of the tumour are features (from 0), and the groups."""

    shares: tuple[int, int]
    groups: Groups
    p: float  # of the log-rank test on the cases that it was made of

    def of(self, shares: np.ndarray, textures: np.ndarray) -> np.ndarray:
        """Group 0 or 1 of cases with shares [N, K] and textures [N, 9] of their sub-regions."""
        return self.groups.of(np.hstack([textures, shares[:, list(self.shares)]]))


@dataclass(frozen=True)
class Outcome:
    """One candidate: its model and losses; grouping is None without survival."""

    gamma: float
    clusters: int
    model: Habitats
    stability_loss: float
    loss: float
    grouping: Grouping | None


@dataclass(frozen=True)
class Objective:
    """The black box of section 2.4, on the cases that train and validate, and no others.

    sites: of these cases; voxels: of each, [n, M] in [-1, 1]; cached: the cases; patients: whose they are; survival: by
    case where it is known, None without a table.
    """

    config: HabitatConfig
    seed: int
    sites: Sites
    voxels: Voxels
    cached: Mapping[str, CachedCase]
    patients: Mapping[str, str]
    survival: Mapping[str, Survival] | None

    def __call__(self, gamma: float, clusters: int) -> Outcome:
        """Algorithm 2 for one candidate.

        Raises:
            ValueError: no site has as many voxels as `clusters`, or the training diverged.
        """
        network, kept = fit(self.voxels, self.sites, gamma, self.config.schedule, self.seed)
        latent = {case: encode(network, values) for case, values in kept.items()}
        trials = self.config.trials
        stability = float(
            np.mean(stability_losses(latent, self.sites, self.patients, clusters, trials, self.seed))
        )
        everyone = [gather(latent, cases) for cases in self.sites.values()]
        model = Habitats(network, federated_kmeans(everyone, clusters, self.seed))
        alpha, loss, grouping = self.config.weight, stability, None
        if self.survival is not None:
            grouping = self._grouping(model, clusters)
            loss = alpha * stability + (1 - alpha) * significance_loss(grouping.p, self.config.tau)
        return Outcome(gamma, clusters, model, stability, loss, grouping)

    def _grouping(self, model: Habitats, clusters: int) -> Grouping:
        """Section 2.2 and 5.2; the "2 significant sub-regions" are not named: those whose share varies most."""
        cases = [case for each in self.sites.values() for case in each]
        found = [described(model.of(self.cached[case]), clusters) for case in cases]
        shares, textures = (np.array(part) for part in zip(*found, strict=True))
        first, second = np.argsort(-shares.std(0), kind="stable")[:2]
        groups = two_groups(np.hstack([textures, shares[:, [first, second]]]))
        grouping = Grouping((int(first), int(second)), groups, 1.0)
        p = significance(cases, grouping.of(shares, textures), self.survival or {})
        return Grouping(grouping.shares, groups, p)


def described(labels: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Share [K] of each sub-region in the tumour and texture [9] of a map uint8 [X, Y, Z]."""
    counts = np.bincount(labels[labels > 0], minlength=clusters + 1)[1:]
    return counts / counts.sum(), label_texture(labels, clusters)


def significance(cases: list[str], groups: np.ndarray, survival: Mapping[str, Survival]) -> float:
    """The p-value of the cases whose survival is known; 1 where they are in one group."""
    known = [(survival[case], int(group)) for case, group in zip(cases, groups) if case in survival]
    if not known:
        return 1.0
    days = np.array([one.days for one, _ in known])
    died = np.array([one.died for one, _ in known])
    return log_rank(np.array([group for _, group in known]), days, died)

"""What is wrong with the data of a site: a modality that it does not have, labels that say something else.

A modality that is missing is zero, which is what the normalised brain and its surroundings have as their mean, in
training and in every test at that site. Wrong labels are those that a site trains on; its validation and its tests keep
the right ones, as they measure what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.intensity import Normaliser
from fedbrats.data.regions import BACKGROUND, ED, ET, NCR
from fedbrats.tasks import segmentation as task

LabelFault = Callable[[Tensor], Tensor]  # labels uint8 [B, *S] -> the same


def swapped(labels: Tensor) -> Tensor:
    """NCR and ED the other way round, as a site that mistakes the convention has them."""
    return torch.where(labels == NCR, ED, torch.where(labels == ED, NCR, labels)).to(labels.dtype)


def no_et(labels: Tensor) -> Tensor:
    """Nothing enhances: a site that has not told ET from the rest of the core."""
    return torch.where(labels == ET, NCR, labels).to(labels.dtype)


def erased(labels: Tensor) -> Tensor:
    """No tumour anywhere."""
    return torch.full_like(labels, BACKGROUND)


def dilated(labels: Tensor) -> Tensor:
    """Every region one voxel larger; where two meet outside the tumour, the one with the larger number."""
    grown = -_least(-labels.float())
    return torch.where(labels == BACKGROUND, grown.to(labels.dtype), labels)


def eroded(labels: Tensor) -> Tensor:
    """The tumour one voxel smaller all round; what is inside stays."""
    inside = _least((labels != BACKGROUND).float())
    return torch.where(inside > 0, labels, torch.full_like(labels, BACKGROUND))


def _least(values: Tensor) -> Tensor:
    """Least of each voxel and its neighbours (3 x 3 or 3 x 3 x 3), [B, *S] -> [B, *S]; there is nothing outside."""
    pool = functional.max_pool3d if values.ndim == 4 else functional.max_pool2d
    return -pool(-values[:, None], 3, stride=1, padding=1)[:, 0]


KINDS: dict[str, LabelFault] = {fault.__name__: fault for fault in (swapped, no_et, erased, dilated, eroded)}


def label_fault(scenario: ScenarioConfig, site: str) -> LabelFault | None:
    """What is wrong with the labels that `site` trains on, None where nothing is."""
    kind = scenario.wrong_labels.get(site)
    return None if kind is None else KINDS[kind]


def with_missing(scenario: ScenarioConfig, site: str, normalise: Normaliser | None) -> Normaliser | None:
    """`normalise`, and after it zero in the place of the modalities that `site` does not have."""
    names = scenario.missing_modalities.get(site)
    if not names:
        return normalise
    channels = [MODALITIES.index(name) for name in names]

    def without(case: CachedCase, image: np.ndarray) -> np.ndarray:
        found = np.array(image if normalise is None else normalise(case, image))
        found[channels] = 0
        return found

    return without


def check_faults(scenario: ScenarioConfig) -> None:
    """Check the kinds and the names of modalities.

    Raises:
        ConfigError: naming the key and what there is.
    """
    for site, kind in scenario.wrong_labels.items():
        if kind not in KINDS:
            raise ConfigError(f"scenario.wrong_labels.{site}={kind}: choose one of {', '.join(KINDS)}.")
    for site, regions in scenario.unlabelled.items():
        if not _are_some(regions, task.REGIONS):
            raise ConfigError(
                f"scenario.unlabelled.{site}={regions}: a list of some of {', '.join(task.REGIONS)}; a site without "
                "any label trains nothing, so leave it out (partition.holdout)."
            )
    for site, names in scenario.missing_modalities.items():
        if not _are_some(names, MODALITIES):
            raise ConfigError(
                f"scenario.missing_modalities.{site}={names}: a list of some of {', '.join(MODALITIES)}, not of all."
            )


def _are_some(names: Sequence[str], of: Sequence[str]) -> bool:
    known = isinstance(names, list) and bool(names) and all(name in of for name in names)
    return known and len(set(names)) == len(names) < len(of)

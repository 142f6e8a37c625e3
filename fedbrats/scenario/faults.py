"""What is wrong with the data of a site: a modality that it does not have, labels that say something else, images that
lie or are scaled differently.

A modality that is missing is zero, which is what the normalised brain and its surroundings have as their mean, in
training and in every test at that site; intensities are scaled, and volumes turned with their labels, in both, too.
Wrong labels are those that a site trains on; its validation and its tests keep the right ones, as they measure what
came of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.intensity import KINDS as NORMALISERS
from fedbrats.data.intensity import Normaliser
from fedbrats.data.regions import BACKGROUND, ED, ET, NCR
from fedbrats.tasks import segmentation as task

AXES = ("x", "y", "z")
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


def inverted(labels: Tensor) -> Tensor:
    """Every class c is C - 1 - c, background ET and so on, as in attacks by flipped labels (Tolpegin et al., 2020)."""
    return (ET - labels.to(torch.int16)).to(labels.dtype)


KINDS: dict[str, LabelFault] = {
    fault.__name__: fault for fault in (swapped, no_et, erased, dilated, eroded, inverted)
}


def label_fault(scenario: ScenarioConfig, site: str) -> LabelFault | None:
    """What is wrong with the labels that `site` trains on, None where nothing is."""
    kind = scenario.wrong_labels.get(site)
    return None if kind is None else KINDS[kind]


def seen_by(scenario: ScenarioConfig, site: str, normalise: Normaliser | None) -> Normaliser | None:
    """`normalise`, and after it the scale of `site`, and zero in the place of the modalities that it does not have."""
    factor = scenario.scaled.get(site, 1.0)
    channels = [MODALITIES.index(name) for name in scenario.missing_modalities.get(site, ())]
    if factor == 1 and not channels:
        return normalise

    def seen(case: CachedCase, image: np.ndarray) -> np.ndarray:
        found = np.array(image if normalise is None else normalise(case, image)) * np.float32(factor)
        found[channels] = 0
        return found

    return seen


def turned_axes(scenario: ScenarioConfig, site: str) -> list[int]:
    """The axes of a volume [X, Y, Z], counted from behind, that run the other way at `site`."""
    return [AXES.index(axis) - len(AXES) for axis in scenario.turned.get(site, ())]


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
    _check_images(scenario)


def _check_images(scenario: ScenarioConfig) -> None:
    for site, factor in scenario.scaled.items():
        if not 0 < factor < math.inf:
            raise ConfigError(f"scenario.scaled.{site}={factor}: must be a positive number.")
    for site, axes in scenario.turned.items():
        if not _are_some(axes, (*AXES, "")):
            raise ConfigError(f"scenario.turned.{site}={axes}: a list of some of {', '.join(AXES)}.")
    for site, kind in scenario.normalise.items():
        if kind not in NORMALISERS:
            raise ConfigError(f"scenario.normalise.{site}={kind}: choose one of {', '.join(NORMALISERS)}.")


def _are_some(names: Sequence[str], of: Sequence[str]) -> bool:
    known = isinstance(names, list) and bool(names) and all(name in of for name in names)
    return known and len(set(names)) == len(names) < len(of)

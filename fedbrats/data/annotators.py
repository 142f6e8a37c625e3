"""The masks of several annotators of one structure, read as one label: how many of them marked each voxel.

"Modeling multi-annotator uncertainty as multi-class segmentation problem" (BrainLes 2021), section 3.2: the masks of N
annotators are summed (Equation 1), and each of the N + 1 counts is a class, "exactly c annotators". A threshold of the
count is a region, "at least c annotators" (Equation 2), and these are nested as WT, TC and ET are. So three
annotators, as the brain tumours of QUBIQ have them (Table 1), take the places of the three regions, and all that trains
and scores regions serves counts: `family_table.ANNOTATORS` says which is which.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case, ImageFile
from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.grids import difference
from fedbrats.data.nifti import USUAL, Source, read_volume
from fedbrats.data.regions import REGIONS, label_numbers
from fedbrats.data.stream import Bounds

COUNT = len(REGIONS)  # of annotators


def by_annotators(case: Case, unlabelled: bool = False) -> Case:
    """`case` with the sum of its annotators' masks as its label; without masks it has none, whatever else lies there.

    Masks of more or of fewer annotators than `COUNT` are a fault; none are one, too, unless `unlabelled`.
    """
    label = None
    if case.masks:
        first, *others = (mask.path for mask in case.masks)
        label = ImageFile(first, others=tuple(others))
    if len(case.masks) == COUNT or (unlabelled and not case.masks):
        return replace(case, label=label)
    fault = (
        f"{len(case.masks)} masks of annotators; data.labels=annotators takes {COUNT} of each case, "
        f"{case.name}_annotator1 to {COUNT}, as the regions are {COUNT}"
    )
    return replace(case, label=label, faults=(*case.faults, fault))


def read_file(file: ImageFile, bounds: Bounds = USUAL) -> tuple[np.ndarray, Source]:
    """The voxels of a file in canonical order and its space, as `nifti.read_volume`; of masks their sum, uint8.

    Raises:
        ValueError: as `read_volume`; a mask with another number than 0 and 1, or on another grid than the first.
    """
    voxels, source = read_volume(file.path, file.channel, bounds)
    if not file.others:
        return voxels, source
    total = _marked(file, 0, voxels)
    for place, path in enumerate(file.others, start=1):
        more, space = read_volume(path, None, bounds)
        if other := difference(space, source):
            raise ValueError(f"{path}: {other} of {file.path.name}")
        total += _marked(file, place, more)
    return total, source


def refuse_counts(key: str, labels: object, instead: str) -> None:
    """Raise ConfigError where `labels`, which `key` is set to, are the masks of annotators, with what to do instead."""
    if labels == ANNOTATORS.name:
        raise ConfigError(f"{key}={labels}: the masks of annotators are not read here; {instead}.")


def _marked(file: ImageFile, place: int, voxels: np.ndarray) -> np.ndarray:
    path = file.paths[place]
    try:
        unexpected = sorted(label_numbers(voxels) - {0, 1})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if unexpected:
        raise ValueError(f"{path}: unexpected numbers {unexpected}, the mask of an annotator has 0 and 1")
    return np.rint(voxels).astype(np.uint8)

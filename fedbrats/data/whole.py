"""Whole cases at a fixed size, for networks that say one thing about a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.intensity import Normaliser
from fedbrats.data.patches import NORMAL

BRAIN, TUMOUR = "brain", "tumour"
CROPS = (BRAIN, TUMOUR)


def whole_image(
    case: CachedCase,
    sides: Sequence[int],
    normalise: Normaliser | None = None,
    plane: str = "axial",
    crop: str = BRAIN,
) -> Tensor:
    """The image of a case resized (trilinear) to `sides`, so that nothing is cut off and no tumour has to be known.

    With crop "tumour" it is that of its tumour. Two sides take the middle slice in `plane` (bilinear), as the
    classifier of median cross sections of BrainLes 2021 does (its section 2.1).

    Args:
        case: of the cache, which holds the brain without what is around it.
        sides: voxels along X, Y, Z; or along the two axes of a slice.
        normalise: changes the values of the image, see `intensity.normaliser`.
        plane: of a slice.
        crop: "brain", or "tumour", the box around the tumour as it is drawn in the label file, as CA-Net (BrainLes
            2021, section 2.1) cuts to the lesion that a U-Net has found. Where there is none it is the brain.

    Returns:
        Float32 [4, *sides] in the order of `MODALITIES`.

    Raises:
        ValueError: crop "tumour" of a case without label file.
    """
    image = case.image if crop == BRAIN else case.image[(slice(None), *box_of(np.asarray(case.label)))]
    if len(sides) == 3:
        values = torch.from_numpy(np.array(image)).float()
        mode = "trilinear"
    else:
        axis = NORMAL[plane] + 1
        middle = image.shape[axis] // 2
        values = torch.from_numpy(np.array(np.take(image, [middle], axis))).float()
        mode = "bilinear"
    if normalise is not None:
        values = torch.from_numpy(normalise(case, values.numpy()))
    if len(sides) == 2:
        values = values.squeeze(NORMAL[plane] + 1)
    return interpolate(values.unsqueeze(0), tuple(sides), mode=mode, align_corners=False).squeeze(0)


def box_of(labels: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that has all voxels of `labels` [X, Y, Z] that are not 0; all of it where there are none."""
    found = []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        where = np.flatnonzero(labels.any(axis=others))
        found.append(slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(None))
    return tuple(found)


def draw_whole(
    cases: Sequence[CachedCase],
    labels: Mapping[str, int],
    rng: np.random.Generator,
    *,
    sides: Sequence[int],
    batch: int,
    planes: Sequence[str] = ("axial",),
    normalise: Normaliser | None = None,
    crop: str = BRAIN,
) -> tuple[Tensor, Tensor]:
    """Draw a batch of whole cases, each uniformly at random.

    Args:
        cases: of one site.
        labels: 0 or 1 by case.
        rng: the only source of randomness.
        sides: as `whole_image`.
        batch: number of cases B.
        planes: of slices; one of them is drawn for each.
        normalise: as `whole_image`.
        crop: as `whole_image`.

    Returns:
        Images float32 [B, 4, *sides] and labels uint8 [B].

    Raises:
        ValueError: no cases.
    """
    if not cases:
        raise ValueError("cannot draw from no cases")
    images, found = torch.empty(batch, len(MODALITIES), *sides), torch.empty(batch, dtype=torch.uint8)
    for index in range(batch):
        case, plane = cases[int(rng.integers(len(cases)))], planes[int(rng.integers(len(planes)))]
        images[index] = whole_image(case, sides, normalise, plane, crop)
        found[index] = labels[case.name]
    return images, found

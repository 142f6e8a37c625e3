"""Several predictions of one image become one: average, majority vote, STAPLE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from fedbrats.inference.predict import Prediction, majority
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.segmentation import labels_from_probabilities, predicted_regions

ITERATIONS = 200  # of STAPLE; evenly split raters otherwise take tens of thousands for digits nobody sees


def combine(members: Sequence[Prediction], how: str) -> Prediction:
    """Combine what the members of an ensemble say; `labels_from_probabilities` of the result are its labels.

    Args:
        members: predictions of one image [C, *S], on one device. Networks may differ in what they predict; a region is
            the business of those that predict it.
        how: "average": mean probability, then binarised ("Regression Voting Ensemble" of "Residual 3D U-Net with
            Localization", BrainLes 2021; its print says average "of the weights", its text and results mean outputs).
            "vote": majority of the members' label masks, region by region ("Classification Voting Ensemble" there); the
            mean probability decides ties. "staple": STAPLE of the same masks, region by region.

    Returns:
        probabilities: the members' own channels where they agree on them and are averaged, else those of the regions
        (1 or 3 channels). mean: average of the region probabilities, also where labels are voted on. spread: population
        standard deviation over the passes of all members. Every member weighs the same.

    Raises:
        ValueError: no members, or an unknown `how`.
    """
    if not members:
        raise ValueError("an ensemble needs at least one member")
    if how not in ("average", "vote", "staple"):
        raise ValueError(f"inference.combine={how}: choose one of average, vote, staple.")
    if len(members) == 1:
        return members[0]
    notes = tuple(dict.fromkeys(note for member in members for note in member.notes))
    passes = sum(member.passes for member in members)
    mean = torch.stack([_all_of(members, region).mean(0) for region in _regions(members)])
    return Prediction(_probabilities(members, how), _spread(members), passes, notes, mean)


def _probabilities(members: Sequence[Prediction], how: str) -> Tensor:
    if how == "average" and len({len(member.probabilities) for member in members}) == 1:
        return torch.stack([member.probabilities for member in members]).mean(0)
    found = []
    for region in _regions(members):
        probabilities = _all_of(members, region)
        if how == "average":
            found.append(probabilities.mean(0))
            continue
        masks = np.stack([_mask(member, region) for member in members if region in regions_of(member)])
        if how == "staple":
            found.append(torch.from_numpy(staple(masks)).to(probabilities))
        else:
            found.append(majority(torch.from_numpy(masks).to(probabilities.device), probabilities))
    return torch.stack(found)


def _spread(members: Sequence[Prediction]) -> Tensor:
    """Root of: mean variance within the members + variance of their means."""
    found = []
    for index, region in enumerate(_regions(members)):
        asked = [member for member in members if region in regions_of(member)]
        variance = _all_of(members, region).var(0, correction=0)
        within = [member.spread[index] ** 2 for member in asked if member.spread is not None]
        found.append((variance + sum(within) / len(asked)).sqrt())
    return torch.stack(found)


def regions_of(prediction: Prediction) -> tuple[str, ...]:
    """The regions that a prediction speaks about."""
    return predicted_regions(len(prediction.probabilities))


def _regions(members: Sequence[Prediction]) -> list[str]:
    return list(task.in_order({region for member in members for region in regions_of(member)}))


def _all_of(members: Sequence[Prediction], region: str) -> Tensor:
    """Mean probabilities [n, *S] of those members that predict the region."""
    return torch.stack([m.by_region[regions_of(m).index(region)] for m in members if region in regions_of(m)])


def _mask(member: Prediction, region: str) -> np.ndarray:
    """Bool [*S], from the labels that the member alone would give."""
    return task.masks(labels_from_probabilities(member.probabilities), [region])[region]


def staple(masks: np.ndarray) -> np.ndarray:
    """Probability float32 [*S] that a voxel is inside, from raters' masks bool [n, *S] (SimpleITK's STAPLE).

    Warfield, Zou and Wells (IEEE TMI 2004): expectation maximisation of each rater's sensitivity and specificity; the
    prior is the mean share of voxels inside, so the result depends on how much background the volume has. Identical
    masks, all empty or all full among them, leave it undefined (0 / 0) and are returned as they are. Two raters of
    whom one is empty tie at 0.5 wherever the other is inside, which counts as outside.
    """
    if (masks == masks[0]).all():
        return masks[0].astype(np.float32)
    rater = sitk.STAPLEImageFilter()
    rater.SetForegroundValue(1.0)
    rater.SetMaximumIterations(ITERATIONS)
    images = [sitk.GetImageFromArray(np.ascontiguousarray(mask, np.uint8)) for mask in masks]
    return sitk.GetArrayFromImage(rater.Execute(images)).astype(np.float32)

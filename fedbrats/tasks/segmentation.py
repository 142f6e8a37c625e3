"""The task: brain tumours as regions that overlap. What is predicted, how it is scored, and what that is called.

Everybody else asks here for the regions and the scores, by `from fedbrats.tasks import segmentation as task`.

What a network's output channels mean is told by their number, so nothing has to be declared:

| channels | meaning | activation | labels |
|---|---|---|---|
| 1 | whole tumour | sigmoid | WT at 0.5, written as oedema |
| 3 | `REGIONS`, which overlap | sigmoid each | each at 0.5, conflicts settled by `labels_from_regions` |
| 4 | background, NCR, ED, ET, which exclude each other | softmax | argmax |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.regions import BACKGROUND, ED, ET, NCR, REGIONS, labels_from_regions, regions_from_labels
from fedbrats.metrics.hd95 import Spacing
from fedbrats.metrics.overlap import dice
from fedbrats.metrics.table import BY_NAME, Masks
from fedbrats.tasks.task import Task

WHOLE, REGION, CLASS = 1, len(REGIONS), 4  # numbers of output channels
EDGE = 1e-6  # probabilities are kept this far from 0 and 1 where a logarithm is taken
IN_WORDS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}  # in the order of `REGIONS`
# The same where labels are counts of annotators.
COUNTS_IN_WORDS = {"WT": "at least 1 annotator", "TC": "at least 2 annotators", "ET": "all 3 annotators"}
LEADING = REGIONS[0]  # the whole: where to look first, and the region of sentences that have room for one
MAIN = "dice"  # the metric that sites tell in every round, and that says which model is better
GAINS = (-1.0, 1.0)  # least and largest difference of two main scores of a case
SHOWN = (MAIN, "hd95")  # metrics in tables of arms and after each step; the others are in the statistics
BY_CONVENTION = "HD95 and empty masks"  # what `metrics.convention` settles
CONVENTION_TITLE = "HD95 convention"
MAIN_TITLE = BY_NAME[MAIN].title
COLUMNS = {region: f"{MAIN}_{region.lower()}" for region in REGIONS}  # of the main scores in `rounds.csv`
SEGMENTATION = Task("segmentation", MAIN, MAIN_TITLE, COLUMNS)
MEANINGS = {WHOLE: ("WT",), REGION: REGIONS, CLASS: REGIONS}  # regions that can be read from the channels


def predicted_regions(channels: int) -> tuple[str, ...]:
    """The regions that an output of so many channels speaks about.

    Raises:
        ValueError: the number has no meaning here.
    """
    if channels not in MEANINGS:
        raise ValueError(
            f"model.out_channels={channels}: use 1 (whole tumour), 3 ({', '.join(REGIONS)}) or 4 (background, "
            "NCR, ED, ET as exclusive classes)."
        )
    return MEANINGS[channels]


def is_softmax(channels: int) -> bool:
    """Whether the channels exclude each other."""
    return channels == CLASS


def targets(labels: Tensor, channels: int) -> Tensor:
    """Targets (bool) [batch, channels, ...] of canonical labels [batch, ...] for an output of so many channels.

    The torch twin of `regions.regions_from_labels`; a test holds the two together.
    """
    if channels == CLASS:
        return torch.stack(
            [labels == value for value in range(CLASS)], dim=1
        )  # one_hot does not run under vmap
    if channels == WHOLE:
        return (labels != BACKGROUND).unsqueeze(1)
    return torch.stack([labels != BACKGROUND, (labels == NCR) | (labels == ET), labels == ET], dim=1)


def activate(logits: Tensor) -> Tensor:
    """Probabilities of logits [batch, channels, ...], the same shape."""
    return logits.softmax(1) if is_softmax(logits.shape[1]) else logits.sigmoid()


def deactivate(probabilities: Tensor) -> Tensor:
    """Logits that `activate` turns into `probabilities` [batch, channels, ...], up to rounding at 0 and 1."""
    if is_softmax(probabilities.shape[1]):
        return probabilities.clamp_min(EDGE).log()
    return probabilities.logit(EDGE)


def region_probabilities(probabilities: Tensor) -> Tensor:
    """Probability of each predicted region [regions, ...] from those of the channels [channels, ...].

    A region of exclusive classes has the sum of its classes' probabilities.
    """
    if probabilities.shape[0] != CLASS:
        return probabilities
    ncr, ed, et = probabilities[NCR], probabilities[ED], probabilities[ET]
    return torch.stack([ncr + ed + et, ncr + et, et])


def labels_from_probabilities(probabilities: Tensor) -> np.ndarray:
    """Canonical labels uint8 [...] from channel probabilities [channels, ...], as the table above says."""
    if probabilities.shape[0] == CLASS:
        return probabilities.argmax(0).to(torch.uint8).cpu().numpy()
    found = (probabilities > 0.5).cpu().numpy()
    if len(found) == WHOLE:
        return np.where(found[0], ED, BACKGROUND).astype(np.uint8)
    return labels_from_regions(found)


def words_of(labels: object) -> Mapping[str, str]:
    """Each region in words, by `data.labels`."""
    return COUNTS_IN_WORDS if labels == ANNOTATORS.name else IN_WORDS


def in_order(regions: Collection[str]) -> tuple[str, ...]:
    """Those of `REGIONS` that are among `regions`."""
    return tuple(region for region in REGIONS if region in regions)


def masks(labels: np.ndarray, regions: Collection[str]) -> dict[str, np.ndarray]:
    """Those `regions` of canonical labels [*S], each a bool mask [*S]."""
    found = regions_from_labels(labels)
    return {region: found[REGIONS.index(region)] for region in regions}


def main_scores(prediction: np.ndarray, truth: np.ndarray, regions: Sequence[str]) -> list[float]:
    """The main metric of each of the `regions`, from canonical labels [X, Y, Z]; between 0 and 1."""
    guess, true = masks(prediction, regions), masks(truth, regions)
    return [dice(guess[region], true[region]) for region in regions]


def shown_scores(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, convention: str
) -> dict[str, float]:
    """The metrics `SHOWN` of one region, from its bool masks [X, Y, Z]."""
    pair = Masks(prediction, reference, spacing, convention)
    return {name: BY_NAME[name].of(pair) for name in SHOWN}

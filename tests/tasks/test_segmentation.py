"""The channels of a network's output and what they mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.data.regions import REGIONS, regions_from_labels
from fedbrats.tasks.segmentation import (
    activate,
    labels_from_probabilities,
    predicted_regions,
    region_probabilities,
    targets,
)

LABELS = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)


def test_targets_of_regions_are_those_of_the_numpy_twin() -> None:
    found = targets(LABELS, 3)[0].numpy()
    assert np.array_equal(found, regions_from_labels(LABELS[0].numpy()))


def test_targets_of_classes_and_of_the_whole_tumour() -> None:
    classes = targets(LABELS, 4)
    assert classes.shape == (1, 4, 2, 2)
    assert torch.equal(classes.float().argmax(1), LABELS.long())
    assert torch.equal(classes.sum(1), torch.ones(1, 2, 2, dtype=torch.long))
    assert torch.equal(targets(LABELS, 1)[0, 0], torch.tensor([[False, True], [True, True]]))


def test_activation_follows_the_number_of_channels() -> None:
    logits = torch.tensor([0.0, 0.0, 0.0, np.log(3.0)], dtype=torch.float32).reshape(1, 4, 1)
    assert torch.allclose(activate(logits).flatten(), torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]))
    assert torch.allclose(activate(logits[:, 1:]).flatten(), torch.tensor([0.5, 0.5, 0.75]))


def test_region_probabilities_of_classes_are_sums() -> None:
    classes = torch.tensor([0.1, 0.2, 0.3, 0.4])  # background, NCR, ED, ET
    assert torch.allclose(region_probabilities(classes), torch.tensor([0.9, 0.6, 0.4]))
    regions = torch.tensor([0.9, 0.6, 0.4])
    assert torch.equal(region_probabilities(regions), regions)


def test_labels() -> None:
    classes = torch.tensor([[0.4, 0.1], [0.3, 0.2], [0.2, 0.3], [0.1, 0.4]])
    assert labels_from_probabilities(classes).tolist() == [0, 3]
    assert labels_from_probabilities(torch.tensor([[0.5, 0.6]])).tolist() == [0, 2]
    regions = torch.tensor([[0.9, 0.9, 0.9], [0.1, 0.9, 0.9], [0.1, 0.1, 0.9]])
    assert labels_from_probabilities(regions).tolist() == [2, 1, 3]


def test_a_number_of_channels_without_meaning_is_refused() -> None:
    assert predicted_regions(1) == ("WT",)
    assert predicted_regions(3) == predicted_regions(4) == REGIONS
    with pytest.raises(ValueError, match=r"model\.out_channels=2"):
        predicted_regions(2)

"""Parts of the search for sub-regions that need no files."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.inference import habitats
from fedbrats.inference.habitats import majority, stability_losses


def test_the_majority_is_what_lies_near_the_mean_of_its_case() -> None:
    values = np.array([[0.0], [1.0], [2.0], [3.0], [44.0]])  # mean 10
    np.testing.assert_array_equal(majority(values, 0.75)[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(majority(values, 1.0), values)
    assert len(majority(values, 0.01)) == 1


def test_shuffles_keep_patients_whole_and_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every voxel is its case's number, so that what is clustered and compared can be read off it."""
    sites = {"a": ["0", "1", "2"], "b": ["3", "4"]}
    patients = {"0": "p", "1": "p", "2": "q", "3": "r", "4": "s"}
    values = {case: np.full((1, 1), float(case), np.float32) for case in patients}
    seen = []

    def note(points: list[np.ndarray], clusters: int, seed: int) -> np.ndarray:
        seen.append({int(x) for site in points for x in site[:, 0]})
        return np.zeros((clusters, 1))

    monkeypatch.setattr(habitats, "federated_kmeans", note)
    assert stability_losses(values, sites, patients, 2, 6, 0) == [0.0] * 6
    first = list(seen)
    for train, val in zip(first[::2], first[1::2], strict=True):
        assert train | val == {0, 1, 2, 3, 4}
        assert not train & val
        assert ({0, 1} <= train) != ({0, 1} <= val)
        assert len({patients[str(case)] for case in val}) == 1  # 25/82 of four, rounded
    assert len({frozenset(val) for val in first[1::2]}) > 1
    stability_losses(values, sites, patients, 3, 6, 0)
    assert seen[12:] == first


def test_one_patient_cannot_be_shuffled() -> None:
    with pytest.raises(ValueError, match="two or more"):
        stability_losses({"0": np.zeros((3, 1), np.float32)}, {"a": ["0"]}, {"0": "p"}, 2, 1, 0)

"""Federated averaging of the autoencoder: what it learns, the mean by hand, and the same bytes again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.training.feature_autoencoder import Schedule, train_averaged


def line(seed: int, n: int = 400) -> np.ndarray:
    """Three modalities that say the same in three ways, between -1 and 1."""
    t = np.random.default_rng(seed).uniform(-0.8, 0.8, n)
    return np.stack([t, -t, t / 2], 1).astype(np.float32)


SITES = {"a": line(0), "b": line(1)}
SHORT = Schedule(rounds=1, local_steps=2, batch=16)


def arrays(weights: dict[str, int], sites: dict[str, np.ndarray] = SITES, seed: int = 3) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(train_averaged(sites, weights, SHORT, seed).parameters())


def test_it_learns_what_the_modalities_have_in_common() -> None:
    voxels = torch.from_numpy(line(7))
    weights = {"a": 1, "b": 1}
    start = train_averaged(SITES, weights, Schedule(rounds=0), 0)
    found = train_averaged(SITES, weights, Schedule(rounds=10, local_steps=20, batch=64), 0)
    with torch.no_grad():
        for before, after in zip(start.errors(voxels), found.errors(voxels), strict=True):
            assert float(after) < 0.1 * float(before)


def test_a_round_is_the_mean_of_the_sites_weighted_by_cases() -> None:
    alone = [arrays({name: 1}, {name: SITES[name]}) for name in SITES]
    torch.testing.assert_close(arrays({"a": 3, "b": 1}), 0.75 * alone[0] + 0.25 * alone[1])


def test_one_seed_gives_the_same_bytes_and_leaves_torch_alone() -> None:
    state = torch.get_rng_state()
    first = arrays({"a": 1, "b": 1})
    assert torch.equal(first, arrays({"a": 1, "b": 1}))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, arrays({"a": 1, "b": 1}, seed=4))


def test_nothing_to_learn_from_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="no site"):
        train_averaged({}, {}, SHORT, 0)
    with pytest.raises(ValueError, match=r"lr=inf: the training diverged"):
        train_averaged(SITES, {"a": 1, "b": 1}, Schedule(rounds=1, lr=float("inf")), 0)

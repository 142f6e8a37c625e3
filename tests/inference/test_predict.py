"""One model's passes: mirrorings, Monte Carlo dropout and planes against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.inference.predict import Running, majority, mirrorings, vote_of_channels
from fedbrats.seeding import seed_torch
from fedbrats.tasks.segmentation import labels_from_probabilities
from tests.inference.toy_networks import Dropping, Echo, Ramp, image_of, predict_toy

SHAPE = (6, 5, 7)


def test_one_pass_has_no_spread() -> None:
    found = predict_toy(Echo(), image_of(SHAPE), [8, 8, 8])
    assert (found.spread, found.passes, found.notes) == (None, 1, ())


@pytest.mark.parametrize(("window", "passes"), [([8, 8, 8], 8), ([8, 8], 4)], ids=str)
def test_mirroring_an_equivariant_network_changes_nothing(window: list[int], passes: int) -> None:
    image = image_of(SHAPE)
    found = predict_toy(Echo(), image, window, flips=True)
    torch.testing.assert_close(found.probabilities, torch.from_numpy(image[:3]).sigmoid(), atol=1e-5, rtol=0)
    assert found.passes == passes
    assert found.spread is not None
    assert float(found.spread.max()) < 1e-5


def test_mirrorings_are_all_subsets() -> None:
    assert mirrorings([1, 2, 3]) == [(), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]


@pytest.mark.parametrize(("window", "sides"), [([8, 8, 8], (8, 3, 4)), ([8, 8], (8, 8, 2))], ids=str)
def test_mirrored_ramp_averages_as_by_hand(window: list[int], sides: tuple[int, int, int]) -> None:
    """Half of the passes see i, half 7 - i along X: mean and population std of two values."""
    found = predict_toy(Ramp(), np.zeros((4, *sides)), window, flips=True)
    p = torch.sigmoid(0.5 * torch.arange(8.0))
    mean, std = (p + p.flip(0)) / 2, (p - p.flip(0)).abs() / 2
    expected = mean.view(1, 8, 1, 1).expand(3, *sides)
    torch.testing.assert_close(found.probabilities, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.spread, std.view(1, 8, 1, 1).expand(3, *sides), atol=1e-6, rtol=0)


def test_running_is_numpys_mean_and_std() -> None:
    values = np.random.default_rng(0).normal(3, 2, (7, 4, 5))
    running = Running()
    for one in torch.from_numpy(values):
        running.add(one)
    np.testing.assert_allclose(running.mean, values.mean(0))
    np.testing.assert_allclose(running.deviation(), values.std(0))


def _by_hand(network: nn.Module, image: np.ndarray, passes: int, seed: int) -> torch.Tensor:
    """The same passes without fedbrats: batch norm in eval, dropout in train, all from one seed."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        seed_torch(seed, "Monte Carlo dropout")
        found = torch.stack([network(torch.from_numpy(image)[None]).sigmoid()[0] for _ in range(passes)])
    network.eval()
    return found


def test_monte_carlo_passes_are_those_of_the_seed() -> None:
    network, image = Dropping(), image_of((8, 8, 8))
    by_hand = _by_hand(network, image, 5, seed=3)
    found = predict_toy(network, image, [8, 8, 8], mc_passes=5, seed=3)
    torch.testing.assert_close(found.probabilities, by_hand.mean(0), atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.spread, by_hand.numpy().std(0), atol=1e-6)
    assert found.passes == 5
    assert float(found.spread.max()) > 0.01


def test_passes_do_not_depend_on_what_came_before_and_leave_the_generator_alone() -> None:
    network, image = Dropping(), image_of((8, 8, 8))
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = predict_toy(network, image, [8, 8, 8], mc_passes=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    predict_toy(network, image_of((9, 9, 9), 1), [8, 8, 8], mc_passes=2)
    again = predict_toy(network, image, [8, 8, 8], mc_passes=3)
    assert torch.equal(first.probabilities, again.probabilities)
    other = predict_toy(network, image, [8, 8, 8], mc_passes=3, seed=1)
    assert not torch.equal(first.probabilities, other.probabilities)


def test_batch_norm_stays_as_it_was() -> None:
    network = Dropping()
    norm = network.body[1]
    with torch.no_grad():
        norm.running_mean.fill_(0.3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict_toy(network, image_of((8, 8, 8)), [8, 8, 8], mc_passes=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("network", [Echo(), Dropping(p=0.0)], ids=["none", "p = 0"])
def test_passes_without_dropout_are_refused(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"inference\.mc_passes.*no dropout.*model\.dropout"):
        predict_toy(network, image_of((8, 8, 8)), [8, 8, 8], mc_passes=2)
    assert not network.training


def test_mirrorings_passes_and_planes_multiply() -> None:
    planes = ["axial", "coronal", "sagittal"]
    found = predict_toy(
        Dropping(sides=2), image_of(SHAPE), [8, 8], flips=True, mc_passes=2, planes=planes, batch=16
    )
    assert found.passes == 3 * 4 * 2
    assert found.probabilities.shape == (3, *SHAPE)


def test_planes_are_averaged_or_vote() -> None:
    """The ramp runs along X in axial and coronal slices and along Y in sagittal ones."""
    planes, image = ["axial", "coronal", "sagittal"], np.zeros((4, 8, 8, 8))
    shifted = nn.Sequential(Ramp(1.0), _Plus(-3.3))
    p = torch.sigmoid(torch.arange(8.0) - 3.3)
    along_x, along_y = p.view(8, 1).expand(8, 8), p.view(1, 8).expand(8, 8)
    average = predict_toy(shifted, image, [8, 8], planes=planes).probabilities
    expected = (2 * along_x + along_y) / 3
    torch.testing.assert_close(average[0, :, :, 0], expected, atol=1e-6, rtol=0)
    voted = predict_toy(shifted, image, [8, 8], planes=planes, combine="vote")
    torch.testing.assert_close(voted.by_region, average, atol=1e-6, rtol=0)
    vote = voted.probabilities
    # Two of three planes say what X says: sagittal slices are outvoted, in the average they are not.
    assert torch.equal(vote[0, :, :, 0] > 0.5, along_x > 0.5)
    assert not torch.equal(average[0, :, :, 0] > 0.5, along_x > 0.5)


class _Plus(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value


def test_one_plane_does_not_vote() -> None:
    image = image_of(SHAPE)
    for window in ([8, 8, 8], [8, 8]):
        found = predict_toy(Echo(), image, window, combine="vote").probabilities
        torch.testing.assert_close(found, torch.from_numpy(image[:3]).sigmoid(), atol=1e-5, rtol=0)


def test_majority_ties_go_to_the_mean_probability() -> None:
    votes = torch.tensor([[True, True, False, True], [False, False, False, True]])
    probabilities = torch.tensor([[0.9, 0.6, 0.4, 0.51], [0.3, 0.1, 0.49, 0.51]])
    # votes 1 of 2 with means 0.6 and 0.35, 0 of 2, 2 of 2
    assert (majority(votes, probabilities) > 0.5).tolist() == [True, False, False, True]
    sure = majority(torch.tensor([[True], [True], [False]]), torch.tensor([[0.51], [0.51], [0.0]]))
    assert sure.item() == pytest.approx((2 + 0.34) / 4)


def test_classes_are_elected() -> None:
    """Background, NCR, ED, ET. Voxel 1: NCR twice. Voxel 2: one vote each for NCR, ED, ET; ET has the largest mean."""
    a = [[0.1, 0.4, 0.3, 0.2], [0.1, 0.5, 0.0, 0.4]]
    b = [[0.1, 0.4, 0.3, 0.2], [0.1, 0.0, 0.5, 0.4]]
    c = [[0.0, 0.0, 1.0, 0.0], [0.1, 0.0, 0.0, 0.9]]
    found = vote_of_channels(torch.tensor([a, b, c]).movedim(-1, 1))
    torch.testing.assert_close(found.sum(0), torch.ones(2))
    assert labels_from_probabilities(found).tolist() == [1, 3]
    mean = torch.tensor([a, b, c]).mean(0).movedim(-1, 0)
    assert labels_from_probabilities(mean).tolist() == [2, 3]  # the average would have taken ED


def test_a_read_only_image_is_left_alone() -> None:
    image = image_of((9, 9, 9)).astype(np.float16)
    image.flags.writeable = False
    before = image.tobytes()
    predict_toy(Echo(), image, [8, 8, 8], flips=True)
    assert image.tobytes() == before

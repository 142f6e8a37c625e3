"""The critic: its layers, both losses and its steps by hand, what it learns, and what it leaves to go on from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from fedbrats.config.critic import CriticConfig
from fedbrats.losses.compound import DiceCE
from fedbrats.tasks.segmentation import targets
from fedbrats.training.critic import Critic, critic_network, critic_of
from fedbrats.training.loop import TrainingError, train_locally


def critic(weight: float = 0.3, lr: float = 5e-5, **options: tuple[str, ...]) -> Critic:
    torch.manual_seed(0)
    return Critic(CriticConfig(weight, lr), 3, **options)


def pointwise(found: Critic) -> Critic:
    """One that says of each voxel 2 times the probability minus 1, so that its losses are worked out by hand."""
    found.network = nn.Sequential(nn.Conv3d(3, 3, 1))
    with torch.no_grad():
        found.network[0].weight.copy_(2 * torch.eye(3).reshape(3, 3, 1, 1, 1))
        found.network[0].bias.fill_(-1)
    found.optimizer = torch.optim.RMSprop(found.network.parameters(), lr=5e-5)
    return found


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1))


def batches(steps: int, side: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    """A box of oedema with another of enhancing tumour in it, and what is seen of them."""
    for seed in range(steps):
        rng = torch.Generator().manual_seed(seed)
        labels = torch.zeros(2, side, side, side, dtype=torch.uint8)
        low = int(torch.randint(0, 3, (), generator=rng))
        labels[:, low : low + 4, 1:5, 1:5] = 2
        labels[:, low + 1 : low + 3, 2:4, 2:4] = 3
        yield labels[:, None].float() + torch.randn(2, 4, side, side, side, generator=rng), labels


def blurred(labels: Tensor) -> Tensor:
    """Logits of a prediction without the edges of the truth."""
    soft = avg_pool3d(targets(labels, 3).float(), 3, stride=1, padding=1)
    return soft.clamp(0.02, 0.98).logit()


def test_there_is_none_where_it_is_off() -> None:
    assert critic_of(CriticConfig(), 3, "cpu") is None
    assert isinstance(critic_of(CriticConfig(weight=0.3), 3, "cpu"), Critic)


def test_layers_are_those_that_are_printed() -> None:
    found = critic_network(3)
    convolutions = [m for m in found if isinstance(m, nn.Conv3d)]
    assert [m.kernel_size for m in convolutions] == [(3, 3, 3)] * 4
    assert [type(m) for m in found] == [nn.Conv3d, nn.BatchNorm3d, nn.LeakyReLU] * 3 + [nn.Conv3d]
    # By hand: 27 weights for each pair of channels, two numbers per channel of a norm, three biases.
    expected = 27 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 3) + 2 * (16 + 32 + 64) + 3
    assert sum(p.numel() for p in found.parameters()) == expected == 75_827
    for sides in ((4, 5, 6), (1, 3, 2)):
        assert found(torch.rand(2, 3, *sides)).shape == (2, 3, *sides)


def test_the_term_of_the_network_by_hand() -> None:
    """Logits of 0 are probabilities of 1/2, of which the critic says 2 / 2 - 1 = 0, so -log psi is log 2."""
    found, logits = pointwise(critic(0.3)), torch.zeros(2, 3, 2, 2, 2, requires_grad=True)
    term = found.term(logits)
    assert float(term.detach()) == pytest.approx(0.3 * math.log(2))
    term.backward()
    # psi - 1 = -1/2 of each of 48 voxels, times 2 of the critic and 1/4 of the sigmoid.
    torch.testing.assert_close(logits.grad, torch.full((2, 3, 2, 2, 2), -0.3 * 0.5 * 2 * 0.25 / 48))
    assert all(p.grad is None and p.requires_grad for p in found.network.parameters())
    torch.testing.assert_close(found.term([logits, torch.ones(2, 3, 1, 1, 1)]), term)  # deep supervision


def test_the_loss_of_the_critic_by_hand() -> None:
    """Of an empty truth the critic says -1: log(1 + e) = 1.3132617; of probabilities of 1/2 again log 2."""
    found, labels = pointwise(critic()), torch.zeros(2, 2, 2, 2, dtype=torch.uint8)
    logits = torch.zeros(2, 3, 2, 2, 2, requires_grad=True)
    before = [p.detach().clone() for p in found.network.parameters()]
    assert float(found.step(logits, labels)) == pytest.approx(1.3132617 + math.log(2))
    assert logits.grad is None
    # RMSProp without momentum begins with rate * g / sqrt(g^2 / 100), ten times the rate; the bias goes by
    # (sigmoid(-1) - 1 + 1/2) / 3 = -0.077 for each channel, so up.
    weight, bias = (p.detach() - b for p, b in zip(found.network.parameters(), before))
    torch.testing.assert_close(bias, torch.full((3,), 5e-4), rtol=1e-3, atol=0)
    torch.testing.assert_close(weight, torch.full_like(weight, -5e-4), rtol=1e-3, atol=1e-6)


def test_its_optimiser_is_the_printed_one() -> None:
    found = critic().optimizer
    assert isinstance(found, torch.optim.RMSprop)
    assert (found.defaults["lr"], found.defaults["momentum"]) == (5e-5, 0)


def test_it_learns_to_tell_truth_from_prediction() -> None:
    found, losses = critic(lr=1e-3), []
    for _, labels in batches(40):
        losses.append(float(found.step(blurred(labels), labels)))
    with torch.no_grad():
        _, labels = next(batches(1))
        sure = [
            found.logits(m).sigmoid().mean() for m in (targets(labels, 3).float(), blurred(labels).sigmoid())
        ]
    assert losses[0] == pytest.approx(2 * math.log(2), abs=0.3)  # it knows nothing
    assert losses[-1] < 0.5
    assert sure[0] > 0.8
    assert sure[1] < 0.2


def test_the_network_is_drawn_to_what_is_taken_for_true() -> None:
    """Logits that follow the term alone are taken for true more and more by a critic that has learnt."""
    found, (_, labels) = critic(1.0, lr=1e-3), next(batches(1))
    for _, others in batches(40):
        found.step(blurred(others), others)
    logits = blurred(labels).requires_grad_()
    optimizer, terms = torch.optim.Adam([logits], lr=0.1), []
    for _ in range(20):
        optimizer.zero_grad()
        term = found.term(logits)
        term.backward()
        optimizer.step()
        terms.append(float(term.detach()))
    assert terms[-1] < 0.5 * terms[0]


def test_a_region_without_truth_is_not_shown() -> None:
    found, (_, labels) = critic(unlabelled=("TC",)), next(batches(1))
    logits = blurred(labels).requires_grad_()
    found.term(logits).backward()
    assert logits.grad is not None
    assert [bool(g.any()) for g in logits.grad.unbind(1)] == [True, False, True]
    other = blurred(labels)
    other[:, 1] = 5
    with torch.no_grad():
        assert torch.equal(found.logits(other.sigmoid()), found.logits(logits.sigmoid()))


def test_it_goes_on_from_what_it_left_bit_for_bit() -> None:
    def steps(of: Critic, count: int) -> dict[str, Tensor]:
        for _, labels in batches(count):
            of.step(blurred(labels), labels)
        return of.state()

    first = critic()
    left = steps(first, 3)
    kinds = {name.rsplit(".", 1)[-1] for name in left}
    assert kinds == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "step",
        "square_avg",
    }
    second = Critic(CriticConfig(0.3), 3)  # other weights
    second.load(left)
    one, other = steps(first, 2), steps(second, 2)
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = Critic(CriticConfig(0.3), 3)
    third.network.load_state_dict(first.network.state_dict())  # its moments are part of it
    assert not torch.equal(steps(third, 1)["network/0.weight"], steps(first, 1)["network/0.weight"])


def test_a_step_follows_both_gradients_and_tells_the_loss_alone() -> None:
    """Plain SGD with rate 1 moves by the sum of the gradient of the loss and that of the term."""
    made = {}
    for parts in ("loss", "term", "both"):
        trained = network()
        loss = DiceCE() if parts != "term" else lambda logits, target: 0 * logits.sum()
        before = [p.detach().clone() for p in trained.parameters()]
        optimizer, beside = torch.optim.SGD(trained.parameters(), lr=1.0), critic(weight=0.3)
        told = train_locally(trained, optimizer, loss, batches(1), critic=None if parts == "loss" else beside)
        moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(trained.parameters(), before)])
        made[parts] = (told, moved)
    torch.testing.assert_close(made["both"][1], made["loss"][1] + made["term"][1])
    assert made["both"][0] == made["loss"][0]
    assert float(made["term"][1].norm()) > 1e-4


def test_training_from_a_seed_is_the_same_bit_by_bit() -> None:
    made = []
    for weight in (0.3, 0.3, 0.6):
        trained, beside = network(), critic(weight)
        optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
        train_locally(trained, optimizer, DiceCE(), batches(3), critic=beside)
        made.append((next(trained.parameters()).detach(), beside.state()["network/9.bias"]))
    assert all(torch.equal(one, again) for one, again in zip(made[0], made[1]))
    assert not torch.equal(made[0][0], made[2][0])


def test_a_critic_that_diverges_names_its_setting() -> None:
    trained = network()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.0)
    with pytest.raises(TrainingError, match=r"train\.critic is not finite: lower train\.critic\.lr"):
        train_locally(trained, optimizer, DiceCE(), batches(2), critic=critic(lr=1e38))

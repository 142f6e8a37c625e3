"""Virtual adversarial training: the direction, the size and the gradient by hand, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from fedbrats.config.vat import VatConfig
from fedbrats.losses.compound import DiceCE
from fedbrats.training.loop import TrainingError, train_locally
from fedbrats.training.vat import VirtualAdversary, adversary_of, divergence, perturbation

SIDES = (2, 3, 2)
VALUES = 4 * 2 * 3 * 2  # of a sample


class Linear(nn.Module):
    """Logits [B, C, 1, 1, 1], each the product of all values of a sample with weights of its own."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, VALUES, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor) -> Tensor:
        return (0.1 * images.flatten(1) @ self.weight.T)[..., None, None, None]


def images_of(samples: int = 2, sides: tuple[int, ...] = SIDES) -> Tensor:
    return torch.randn(samples, 4, *sides, generator=torch.Generator().manual_seed(2))


def moved_by(network: nn.Module, **settings: Any) -> Tensor:
    images = images_of()
    torch.manual_seed(3)
    return perturbation(network, images, network(images).detach(), VatConfig(**settings))


def convolutions(norm: nn.Module | None = None, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv3d(4, 4, 3, padding=1), norm or nn.Identity(), nn.ReLU(), nn.Dropout3d(dropout)]
    return nn.Sequential(*layers, nn.Conv3d(4, 3, 1))


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    for seed in range(steps):
        rng = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 4, (2, 4, 4, 4), generator=rng, dtype=torch.uint8)
        yield labels[:, None].float() + torch.randn(2, 4, 4, 4, 4, generator=rng), labels


def test_divergences_are_those_of_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    clean, moved = torch.randn(2, 2, 3, 4, 5, generator=rng)
    expected = kl_divergence(Bernoulli(logits=clean), Bernoulli(logits=moved)).mean((1, 2, 3))
    torch.testing.assert_close(divergence(clean, moved), expected)
    clean, moved = torch.randn(2, 2, 4, 4, 5, generator=rng)
    classes = [Categorical(logits=logits.movedim(1, -1)) for logits in (clean, moved)]
    torch.testing.assert_close(divergence(clean, moved), kl_divergence(*classes).mean((1, 2)))
    # 1/2 log(1/2 / 3/4) + 1/2 log(1/2 / 1/4) = 0.143841
    half, most = torch.zeros(1, 1), torch.tensor([[3.0]]).log()
    assert float(divergence(half, most)) == pytest.approx(0.1438410)
    assert float(divergence(clean, clean).abs().max()) == 0


def test_the_direction_of_a_linear_model_is_that_of_its_weight() -> None:
    """The gradient at any step d is (q - p) w, so one iteration finds w, up to its sign, and no more are needed."""
    network = Linear()
    found = moved_by(network, epsilon=0.3).flatten(1)
    weight = network.weight.detach()[0]
    cosine = (found @ weight) / (found.norm(dim=1) * weight.norm())
    torch.testing.assert_close(cosine.abs(), torch.ones(2))


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("epsilon", [0.3, 2.0])
def test_the_size_is_that_of_the_settings(epsilon: float, iterations: int) -> None:
    """A root mean square of epsilon over n values is a 2-norm of epsilon sqrt(n)."""
    found = moved_by(Linear(3), epsilon=epsilon, iterations=iterations)
    expected = torch.full((2,), epsilon * VALUES**0.5)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), expected)


def test_iterations_lead_to_the_dominant_eigenvector() -> None:
    """The Hessian of the divergence of three sigmoids of products w x / 10 is sum p (1 - p) w w^T, up to a factor."""
    network = Linear(3)
    found = moved_by(network, iterations=60, xi=1e-2).flatten(1)
    for image, direction in zip(images_of(), found):
        p = network(image[None]).detach().flatten().sigmoid()
        weight = network.weight.detach()
        values, vectors = torch.linalg.eigh(weight.T @ ((p * (1 - p))[:, None] * weight))
        assert values[-2] < 0.95 * values[-1]  # else 60 iterations would not tell them apart
        cosine = (vectors[:, -1] @ direction) / direction.norm()
        assert float(cosine.abs()) == pytest.approx(1, abs=1e-3)


def test_a_prediction_that_nothing_moves_keeps_the_random_direction() -> None:
    network = Linear()
    nn.init.zeros_(network.weight)
    found = moved_by(network, epsilon=0.3)
    torch.manual_seed(3)
    drawn = torch.randn(2, 4, *SIDES)
    size = drawn.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
    torch.testing.assert_close(found, 0.3 * drawn / size)


@pytest.mark.parametrize("target", ["prediction", "truth"])
def test_no_gradient_goes_through_the_perturbation_or_the_clean_prediction(target: str) -> None:
    network, seen = convolutions(), []
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images, labels = next(batches(1))
    VirtualAdversary(VatConfig(weight=0.5, epsilon=1.0, target=target))(network, images, labels).backward()
    found = [p.grad.clone() for p in network.parameters()]
    moved = seen[-1]
    assert len(seen) == 3  # the clean pass, one of the search, the moved one
    assert not moved.requires_grad
    assert float((moved - images).square().mean()) == pytest.approx(1)
    if target == "prediction":
        value = kl_divergence(
            Bernoulli(logits=network(images).detach()), Bernoulli(logits=network(moved))
        ).mean()
    else:
        regions = torch.stack([labels > 0, (labels == 1) | (labels == 3), labels == 3], dim=1).float()
        value = binary_cross_entropy_with_logits(network(moved), regions)
    expected = torch.autograd.grad(0.5 * value, list(network.parameters()))
    for gradient, by_hand in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, by_hand)
        assert float(by_hand.abs().max()) > 0


def test_the_search_leaves_no_gradient_at_the_weights() -> None:
    network, (images, labels) = convolutions(), next(batches(1))
    VirtualAdversary(VatConfig(weight=1.0))(network, images, labels)
    assert all(p.grad is None for p in network.parameters())


def test_a_region_without_truth_teaches_nothing() -> None:
    network, (images, labels) = convolutions(), next(batches(1))
    VirtualAdversary(VatConfig(weight=1.0, target="truth"), ("TC",))(network, images, labels).backward()
    bias = network[-1].bias.grad  # type: ignore[union-attr]
    assert [bool(value) for value in bias] == [True, False, True]


def test_without_a_weight_there_is_no_term() -> None:
    assert adversary_of(VatConfig()) is None
    network, (images, labels) = convolutions(), next(batches(1))
    term = VirtualAdversary(VatConfig())(network, images, labels)
    term.backward()
    assert float(term.detach()) == 0
    assert not any(p.grad.any() for p in network.parameters())
    assert float(VirtualAdversary(VatConfig(weight=1.0))(network, images, labels).detach()) > 0


@pytest.mark.parametrize("norm", [nn.BatchNorm3d(4), nn.InstanceNorm3d(4, track_running_stats=True)])
def test_running_statistics_are_not_moved(norm: nn.Module) -> None:
    network, (images, labels) = convolutions(norm), next(batches(1))
    network(images)  # so that they are not those of the start
    own = dict(network.named_buffers())
    before = {name: buffer.clone() for name, buffer in own.items()}
    logits, outputs = network(images), []
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    network.register_forward_hook(lambda module, given, output: outputs.append(output))
    VirtualAdversary(VatConfig(weight=1.0))(network, images, labels).backward()
    assert len(before) == 3
    assert all(torch.equal(buffer, before[name]) for name, buffer in own.items())
    assert all(buffer is own[name] for name, buffer in network.named_buffers())
    torch.testing.assert_close(outputs[0], logits)  # normalised by the batch, as in training
    network(images)
    assert not torch.equal(network[1].running_mean, before["1.running_mean"])  # type: ignore[index]


def test_layers_that_use_their_statistics_go_on_to_do_so() -> None:
    """As in fine-tuning of a head, where the norms are frozen."""
    network, (images, labels) = convolutions(nn.BatchNorm3d(4)), next(batches(1))
    network(images)
    network[1].eval()  # type: ignore[index]
    expected, outputs = network(images), []
    network.register_forward_hook(lambda module, given, output: outputs.append(output))
    VirtualAdversary(VatConfig(weight=1.0))(network, images, labels)
    torch.testing.assert_close(outputs[0], expected)


def test_all_passes_of_a_step_drop_the_same_and_the_next_step_drops_others() -> None:
    network, masks = convolutions(dropout=0.5), []
    network[3].register_forward_hook(  # type: ignore[index]
        lambda module, given, output: masks.append((output != 0).flatten(2).any(2))
    )
    images, labels = torch.randn(16, 4, 4, 4, 4), torch.zeros(16, 4, 4, 4, dtype=torch.uint8)
    adversary = VirtualAdversary(VatConfig(weight=1.0))
    for _ in range(2):
        adversary(network, images, labels)
    assert len(masks) == 6
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert torch.equal(masks[3], masks[5])
    assert not torch.equal(masks[0], masks[3])


def test_what_is_drawn_afterwards_does_not_depend_on_the_passes() -> None:
    network, (images, labels) = convolutions(dropout=0.5), next(batches(1))
    drawn = []
    for iterations in (1, 3):
        torch.manual_seed(0)
        VirtualAdversary(VatConfig(weight=1.0, iterations=iterations))(network, images, labels)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def trained(weight: float, lr: float = 0.1, steps: int = 3, **options: Any) -> tuple[float, Tensor]:
    network = convolutions(nn.BatchNorm3d(4), dropout=0.2)
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    adversary = adversary_of(VatConfig(weight=weight, epsilon=1.0, **options))
    loss = train_locally(network, optimizer, DiceCE(), batches(steps), adversary=adversary)
    return loss, torch.cat([t.flatten().double() for t in network.state_dict().values()])


def test_training_from_a_seed_is_the_same_bit_by_bit_and_the_term_takes_part_in_it() -> None:
    first, again, without = trained(0.5), trained(0.5), trained(0.0)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], without[1])
    assert not torch.equal(first[1], trained(0.5, target="truth")[1])


def test_a_step_follows_both_gradients_and_tells_the_loss_alone() -> None:
    """Plain SGD with rate 1 moves by the sum of the gradient of the loss and that of the term."""
    (images, labels), made = next(batches(1)), {}
    for parts in ("loss", "term", "both"):
        network = convolutions()
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        adversary = None if parts == "loss" else VirtualAdversary(VatConfig(weight=0.5, epsilon=1.0))
        loss = DiceCE() if parts != "term" else lambda logits, target: 0 * logits.sum()
        before = [p.detach().clone() for p in network.parameters()]
        told = train_locally(network, optimizer, loss, iter([(images, labels)]), adversary=adversary)
        moved = [p.detach() - b for p, b in zip(network.parameters(), before)]
        made[parts] = (told, torch.cat([m.flatten() for m in moved]))
    torch.testing.assert_close(made["both"][1], made["loss"][1] + made["term"][1])
    assert made["both"][0] == made["loss"][0]
    assert float(made["term"][1].norm()) > 1e-4


def test_a_penalty_looks_at_the_pass_of_the_images_themselves() -> None:
    network, seen = convolutions(), []
    (images, labels), last = next(batches(1)), {}
    network.register_forward_pre_hook(lambda module, given: last.update(images=given[0]))

    def penalty() -> Tensor:
        seen.append(last["images"])
        return torch.zeros((), requires_grad=True)

    optimizer, adversary = torch.optim.SGD(network.parameters(), lr=0.1), adversary_of(VatConfig(weight=1.0))
    data = iter([(images, labels)] * 2)
    train_locally(network, optimizer, DiceCE(), data, penalty=penalty, adversary=adversary)
    assert len(seen) == 2
    assert all(torch.equal(found, images) for found in seen)
    assert not torch.equal(last["images"], images)


def test_a_term_that_is_not_finite_names_the_setting() -> None:
    network = convolutions()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    adversary = adversary_of(VatConfig(weight=1.0, epsilon=3e38, target="truth"))
    with pytest.raises(TrainingError, match=r"train\.vat is not finite: lower train\.vat\.epsilon"):
        train_locally(network, optimizer, DiceCE(), batches(1), adversary=adversary)

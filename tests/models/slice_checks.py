"""What every 2D network of the seed papers has to show; each test file names the numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

Shape = tuple[int, ...]


def losses_of_steps(network: nn.Module, steps: int = 8, lr: float = 0.003) -> list[float]:
    """Losses of Adam steps on one batch: four 64x64 slices of noise with a bright square as enhancing tumour."""
    torch.manual_seed(0)
    labels = torch.zeros(4, 64, 64, dtype=torch.long)
    labels[:, 16:40, 24:48] = 3
    images = torch.randn(4, 4, 64, 64) + 2 * (labels > 0).unsqueeze(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        logits = network(images)
        if logits.shape[1] == 4:
            loss = cross_entropy(logits, labels)
        else:
            loss = binary_cross_entropy_with_logits(
                logits, (labels > 0).float().unsqueeze(1).expand_as(logits)
            )
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def is_certain_in_eval_only(network: nn.Module) -> bool:
    """Whether dropout acts in training, and two passes of evaluation agree bit for bit."""
    images = torch.randn(2, 4, 64, 64)
    with torch.no_grad():
        differ = not torch.equal(network.train()(images), network(images))
        network.eval()
        return differ and torch.equal(network(images), network(images))


def largest_difference_in_channels_last(network: nn.Module) -> float:
    """Between the gradients of all weights in both memory formats, over the largest gradient."""
    images, found = torch.randn(2, 4, 64, 64), []
    for memory in (torch.contiguous_format, torch.channels_last):
        network = network.to(memory_format=memory).double().train()
        network.zero_grad()
        torch.manual_seed(0)
        network(images.double().contiguous(memory_format=memory)).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    return float((found[0] - found[1]).abs().max() / found[0].abs().max())


def main_path(network: nn.Module, shortcut: str, sides: tuple[int, int]) -> list[str]:
    """Names of the convolutions in the order of the forward pass, without transposed ones and those on shortcuts.

    Args:
        network: on the meta device.
        shortcut: the name that a shortcut has in this network.
        sides: of a slice.
    """
    names: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and shortcut not in name.split("."):
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    network(torch.zeros(2, 4, *sides, device="meta"))
    return names


def record_shapes(module: nn.Module, into: list[tuple[Shape, Shape]]) -> None:
    """Append the shapes [channels, A, B] of input and output to `into` whenever `module` runs."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        into.append((tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

    module.register_forward_hook(hook)


def shapes_through(
    make: Callable[[], nn.Module], pick: Callable[[nn.Module], list[nn.Module]], sides: tuple[int, int]
) -> list[tuple[Shape, Shape]]:
    """Shapes of input and output of the picked modules, in the order in which they run, without any memory."""
    shapes: list[tuple[Shape, Shape]] = []
    with torch.device("meta"):
        network = make()
        for module in pick(network):
            record_shapes(module, shapes)
        network(torch.zeros(2, 4, *sides))
    return shapes

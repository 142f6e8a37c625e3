"""A site without a federation: plain gradient descent on problems that can be solved by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Beside, Penalty
from fedbrats.algorithms.fedavg import FedAvg

Batch = tuple[Tensor, Tensor]


class Point(nn.Module):
    """One weight x, which is the output whatever the images are."""

    def __init__(self, x: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([x], dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.x.expand(len(images))


def half_square(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean of (output - label)^2 / 2; of a Point with label c its derivative is x - c."""
    return 0.5 * ((outputs - labels) ** 2).mean()


class ToyWork:
    """`LocalWork` with plain steps; every kind of work has random numbers of its own, as at a real site."""

    def __init__(
        self,
        network: nn.Module,
        state: dict[str, Tensor] | None = None,
        *,
        target: float = 0.0,
        steps: int = 2,
        rate: float = 0.1,
        round_: int = 1,
        algorithm: FedAvg | None = None,
    ) -> None:
        self.network, self.state, self.steps, self.rate, self.round = (
            network,
            state or {},
            steps,
            rate,
            round_,
        )
        self.patch = [4, 4, 4]
        self.target, self.algorithm = target, algorithm or FedAvg()
        self.done: list[tuple[str, int, float]] = []  # name, steps and factor of every `fit`

    @property
    def x(self) -> float:
        """The weight of a Point."""
        return float(self.network.get_parameter("x").detach())

    def penalty(self, network: nn.Module) -> Penalty | None:
        return self.algorithm.begin(network, Beside())

    def optimizer(self, name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.rate)

    def batches(self, name: str, steps: int | None = None) -> Iterator[Batch]:
        seed = 1000 * self.round + sum(name.encode())
        torch.manual_seed(seed)
        return self._draw(torch.Generator().manual_seed(seed), self.steps if steps is None else steps)

    def _draw(self, rng: torch.Generator, steps: int) -> Iterator[Batch]:
        for _ in range(steps):
            yield torch.zeros(1, 4, 1, 1), torch.tensor([self.target], dtype=torch.float64)

    def value(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return half_square(outputs, labels)

    def fit(
        self,
        name: str,
        network: nn.Module,
        penalty: Penalty | None = None,
        steps: int | None = None,
        lr_factor: float = 1.0,
    ) -> float:
        optimizer = self.optimizer(name, network.parameters())
        for group in optimizer.param_groups:
            group["lr"] *= lr_factor
        network.train()
        losses = []
        for images, labels in self.batches(name, steps):
            images = images.to(
                memory_format=torch.channels_last_3d if images.ndim == 5 else torch.channels_last
            )
            optimizer.zero_grad(set_to_none=True)
            value = self.value(network(images), labels)
            losses.append(value.detach())
            (value if penalty is None else value + penalty()).backward()
            optimizer.step()
        self.done.append((name, len(losses), lr_factor))
        return float(torch.stack(losses).mean())


class ConvWork(ToyWork):
    """The same with random volumes for a small network; momentum, so that the order of steps matters."""

    def optimizer(self, name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.rate, momentum=0.9)

    def _draw(self, rng: torch.Generator, steps: int) -> Iterator[Batch]:
        for _ in range(steps):
            images = torch.randn(2, 4, 4, 4, 4, generator=rng)
            yield images, images.mean(dim=1) + self.target

    def value(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return half_square(outputs[:, 0], labels)


def conv_network() -> nn.Sequential:
    """BatchNorm, dropout and a head, all that can go wrong; float32 and the same at every call."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv3d(4, 6, 1, bias=False),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv3d(6, 5, 1),
        nn.GroupNorm(1, 5),
        nn.Conv3d(5, 1, 1),
    )

"""SCAFFOLD by hand on two parabolas, step by step as Algorithm 1 has it, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from fedbrats.algorithms.base import Beside, Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.scaffold import Scaffold

SGD = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


class Point(nn.Module):
    """One weight w, and a statistic that is not trained."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.float64))


@dataclass
class Parabola:
    """A site that minimises a/2 (w - b)^2."""

    a: float
    b: float
    kept: dict[str, torch.Tensor] = field(default_factory=dict)

    def train(
        self, algorithm: FedAvg, x: float, told: dict[str, torch.Tensor], steps: int, rate: float
    ) -> Reply:
        network = Point(x)
        site = Beside({"w": network.w.detach().clone()}, told, self.kept)
        penalty = algorithm.begin(network, site)
        for _ in range(steps):
            network.w.grad = None
            loss = self.a / 2 * (network.w - self.b).square().sum()
            (loss if penalty is None else loss + penalty()).backward()
            with torch.no_grad():
                network.w -= rate * network.w.grad
        left = algorithm.end(network, site, steps, rate)
        self.kept = left.kept
        arrays = {"w": network.w.detach().numpy(), "seen": network.get_buffer("seen").numpy()}
        return Reply("A", arrays, 1, steps, 0.5, {n: t.numpy() for n, t in left.sent.items()})


@dataclass
class Server:
    algorithm: FedAvg
    sites: list[Parabola]
    x: float = 0.0
    memory: Memory = field(default_factory=Memory)
    rate: float = 0.1

    def round(self, answering: list[int] | None = None, steps: int = 2) -> None:
        group = Group(len(self.sites), frozenset({"w"}))
        model = {"w": torch.tensor([self.x], dtype=torch.float64), "seen": torch.zeros(1).double()}
        told = self.algorithm.told(model, self.memory, group)
        found = self.algorithm.collect(self.memory)
        for index, site in enumerate(self.sites):
            if answering is None or index in answering:
                found.add(site.train(self.algorithm, self.x, told, steps, self.rate))
        new, self.memory = self.algorithm.step(model, found, self.memory, group)
        self.x = float(new["w"])

    @property
    def c(self) -> float:
        return float(self.memory.arrays["w"])


def two_sites() -> list[Parabola]:
    return [Parabola(1.0, 1.0), Parabola(2.0, -1.0)]


def test_two_rounds_by_hand() -> None:
    """K = 2, rate 0.1, x = 0; the sites minimise (w - 1)^2 / 2 and (w + 1)^2.

    Round 1, no corrections yet. A: 0, 0.1, 0.19, so c_A = (0 - 0.19) / 0.2 = -0.95, the mean of its gradients -1 and
    -0.9. B: 0, -0.2, -0.36, c_B = 1.8. x = (0.19 - 0.36) / 2 = -0.085, c = (-0.95 + 1.8) / 2 = 0.425.
    Round 2. A is corrected by 0.425 + 0.95 = 1.375: gradients 0.29 and 0.261, so -0.085, -0.114, -0.1401; its own
    gradients were -1.085 and -1.114, c_A = -1.0995. B by -1.375: 0.455 and 0.364, -0.1305, -0.1669; c_B = 1.7845.
    x = -0.1535, c = (-1.0995 + 1.7845) / 2 = 0.3425.
    """
    server = Server(Scaffold(), two_sites())
    server.round()
    assert server.x == pytest.approx(-0.085)
    assert [float(site.kept["w"]) for site in server.sites] == pytest.approx([-0.95, 1.8])
    assert server.c == pytest.approx(0.425)
    server.round()
    assert server.x == pytest.approx(-0.1535)
    assert [float(site.kept["w"]) for site in server.sites] == pytest.approx([-1.0995, 1.7845])
    assert server.c == pytest.approx(0.3425)


def test_it_ends_at_the_optimum_of_all_sites_where_averaging_does_not() -> None:
    """w - 1 + 2 (w + 1) = 0 at -1/3; with unequal curvature FedAvg stops elsewhere however long it runs."""
    scaffold, plain = Server(Scaffold(), two_sites()), Server(FedAvg(), two_sites())
    for _ in range(200):
        scaffold.round(steps=8)
        plain.round(steps=8)
    assert scaffold.x == pytest.approx(-1 / 3, abs=1e-6)
    assert abs(plain.x + 1 / 3) > 0.05


def test_sites_that_do_not_answer_keep_their_share_of_c() -> None:
    """c moves by 1/N of the sum, x by the mean of those that answered: B alone, so c = 1.8 / 2."""
    server = Server(Scaffold(), two_sites())
    server.round(answering=[1])
    assert (server.x, server.c) == (pytest.approx(-0.36), pytest.approx(0.9))
    server.round(answering=[1])
    b = float(server.sites[1].kept["w"])
    assert server.c == pytest.approx(b / 2)  # the mean of c_A = 0 and c_B


def test_the_servers_rate_scales_the_way_and_spares_running_statistics() -> None:
    server = Server(Scaffold(lr=0.5), two_sites())
    server.round()
    assert server.x == pytest.approx(-0.0425)
    algorithm = Scaffold(lr=0.5)
    found = algorithm.collect(Memory())
    found.add(Parabola(1.0, 1.0).train(algorithm, 0.0, {"w": torch.zeros(1).double()}, 2, 0.1))
    old = {"w": torch.zeros(1).double(), "seen": torch.full((1,), 4.0).double()}
    new, memory = algorithm.step(old, found, Memory(), Group(1, frozenset({"w"})))
    assert (float(new["seen"]), memory.arrays.keys()) == (0.0, {"w"})


def test_only_what_travels_and_is_trained_has_a_control_variate() -> None:
    told = Scaffold().told({"w": torch.ones(2), "seen": torch.ones(1)}, Memory(), Group(2, frozenset({"w"})))
    assert {name: array.tolist() for name, array in told.items()} == {"w": [0, 0]}


@pytest.mark.parametrize(
    ("company", "words"),
    [
        (Company(optimizer=torch.optim.AdamW([nn.Parameter(torch.zeros(1))])), "train/optimizer=sgd_plain"),
        (
            Company(optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)),
            "momentum",
        ),
        (Company(optimizer=SGD, clip_norm=1.0), "train.clip_norm=null"),
        (Company(optimizer=SGD, own_start=True), "personalization"),
        (Company(optimizer=SGD, central_privacy=True), "privacy=central"),
    ],
)
def test_what_it_cannot_be_combined_with(company: Company, words: str) -> None:
    assert words in str(Scaffold().refuses(company))


def test_patient_level_privacy_is_no_obstacle() -> None:
    assert Scaffold().refuses(Company(optimizer=SGD, patient_privacy=True)) is None


def test_a_bad_rate_is_named() -> None:
    with pytest.raises(ValueError, match=r"strategy\.lr=0"):
        Scaffold(lr=0.0)

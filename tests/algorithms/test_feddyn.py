"""FedDyn by hand on two parabolas, and where it ends."""

from __future__ import annotations

import pytest
import torch

from fedbrats.algorithms.base import Beside, Company
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.feddyn import FedDyn
from tests.algorithms.test_scaffold import Parabola, Point, Server, two_sites


def test_the_term_by_hand() -> None:
    """alpha = 0.5, x = 1, g = 0.2: at w = 3 the term is 0.25 * 4 - 0.2 * 3 = 0.4 and its slope 0.5 * 2 - 0.2 = 0.8."""
    network = Point(3.0)
    start, kept = ({"w": torch.tensor([v], dtype=torch.float64)} for v in (1.0, 0.2))
    penalty = FedDyn(alpha=0.5).begin(network, Beside(start, {}, kept))
    assert penalty is not None
    found = penalty()
    found.backward()
    assert found.item() == pytest.approx(0.4)
    assert float(network.w.grad) == pytest.approx(0.8)
    left = FedDyn(alpha=0.5).end(network, Beside(start, {}, kept), 1, 0.1)
    assert float(left.kept["w"]) == pytest.approx(0.2 - 0.5 * 2)
    assert left.sent == {}


def test_a_round_by_hand() -> None:
    """x = 0, alpha = 1, one step of 0.1 at (w - 1)^2 / 2 and (w + 1)^2, no g yet and no pull at x.

    y = 0.1 and -0.2; g = -0.1 and 0.2; h = 0 - 1/2 (0.1 - 0.2) = 0.05; x = -0.05 - 0.05 = -0.1.
    """
    server = Server(FedDyn(alpha=1.0), two_sites())
    server.round(steps=1)
    assert [float(site.kept["w"]) for site in server.sites] == [pytest.approx(-0.1), pytest.approx(0.2)]
    assert server.c == pytest.approx(0.05)  # h
    assert server.x == pytest.approx(-0.1)


def test_a_site_that_does_not_answer_counts_among_all() -> None:
    """h moves by alpha / N of who has answered: 1/2 * 0.1, and x = 0.1 + 0.05."""
    server = Server(FedDyn(alpha=1.0), two_sites())
    server.round([0], steps=1)
    assert server.c == pytest.approx(-0.05)
    assert server.x == pytest.approx(0.15)


def test_it_ends_at_the_minimum_of_all_where_fedavg_does_not() -> None:
    """Of (w - 1)^2 / 2 + (w + 1)^2 it is at w = -1/3."""

    def ends(algorithm: FedAvg) -> float:
        server = Server(algorithm, [Parabola(1.0, 1.0), Parabola(2.0, -1.0)])
        for _ in range(60):
            server.round(steps=30)
        return server.x

    assert ends(FedDyn(alpha=1.0)) == pytest.approx(-1 / 3, abs=1e-3)
    assert abs(ends(FedAvg()) + 1 / 3) > 0.1


def test_without_a_trained_array_there_is_no_term() -> None:
    assert FedDyn().begin(Point(1.0), Beside()) is None


def test_what_it_cannot_be_combined_with() -> None:
    assert "personalization" in str(FedDyn().refuses(Company(own_start=True)))
    assert "privacy=central" in str(FedDyn().refuses(Company(central_privacy=True)))
    assert FedDyn().refuses(Company(patient_privacy=True)) is None
    with pytest.raises(ValueError, match=r"strategy\.alpha=0"):
        FedDyn(alpha=0)

"""FedAdagrad against numbers worked out by hand from Algorithm 2."""

from __future__ import annotations

import pytest

from fedbrats.algorithms.base import Memory
from fedbrats.algorithms.fedadagrad import FedAdagrad
from tests.algorithms.test_fedadam import step


def test_two_rounds_by_hand() -> None:
    """x = 1, lr = 0.1, beta_1 = 0, tau = 0.1, so v starts at 0.01.

    Round 1: D = 0.5 = m; v = 0.26, sqrt(v) = 0.5099020, x = 1 + 0.1 * 0.5 / 0.6099020 = 1.0819804.
    Round 2: the sites say 0.5819804, D = -0.5; v = 0.51, sqrt(v) = 0.7141428, x = 1.0819804 - 0.05 / 0.8141428
    = 1.0205661.
    """
    algorithm = FedAdagrad(lr=0.1, tau=0.1)
    new, memory = step(algorithm, {"w": 1.0}, [{"w": 1.2}, {"w": 1.8}], Memory())
    assert float(new["w"]) == pytest.approx(1.0819804, abs=5e-8)
    new, memory = step(algorithm, {"w": 1.0819804}, [{"w": 0.5819804}], memory)
    assert float(new["w"]) == pytest.approx(1.0205661, abs=5e-8)
    assert float(memory.arrays["m/w"]) == pytest.approx(-0.5)
    assert float(memory.arrays["v/w"]) == pytest.approx(0.51)


def test_it_has_no_beta_2() -> None:
    with pytest.raises(TypeError, match="beta_2"):
        FedAdagrad(beta_2=0.9)

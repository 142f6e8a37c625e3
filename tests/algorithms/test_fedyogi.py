"""FedYogi against numbers worked out by hand from Algorithm 2."""

from __future__ import annotations

import pytest

from fedbrats.algorithms.base import Memory
from fedbrats.algorithms.fedyogi import FedYogi
from tests.algorithms.test_fedadam import step


def test_two_rounds_by_hand() -> None:
    """x = 1, lr = 0.1, beta_1 = 0.9, beta_2 = 0.99, tau = 0.1, so v starts at 0.01.

    Round 1: D = 0.5, m = 0.05; v - D^2 = 0.01 - 0.25 < 0, so v = 0.01 + 0.01 * 0.25 = 0.0125, sqrt(v) = 0.1118034,
    x = 1 + 0.1 * 0.05 / 0.2118034 = 1.0236068.
    Round 2: both say 1, D = -0.0236068, D^2 = 0.00055728; m = 0.045 - 0.00236068 = 0.04263932;
    v - D^2 > 0, so v = 0.0125 - 0.01 * 0.00055728 = 0.0124944272, sqrt(v) = 0.1117785,
    x = 1.0236068 + 0.1 * 0.04263932 / 0.2117785 = 1.0437407.
    """
    algorithm = FedYogi(lr=0.1, tau=0.1)
    new, memory = step(algorithm, {"w": 1.0}, [{"w": 1.2}, {"w": 1.8}], Memory())
    assert float(new["w"]) == pytest.approx(1.0236068, abs=5e-8)
    assert float(memory.arrays["v/w"]) == pytest.approx(0.0125)
    new, memory = step(algorithm, {"w": float(new["w"])}, [{"w": 1.0}, {"w": 1.0}], memory)
    assert float(new["w"]) == pytest.approx(1.0437407, abs=1e-7)
    assert float(memory.arrays["m/w"]) == pytest.approx(0.0426393, abs=5e-8)
    assert float(memory.arrays["v/w"]) == pytest.approx(0.0124944272, abs=5e-11)


def test_a_bad_value_names_its_key() -> None:
    with pytest.raises(ValueError, match=r"strategy\.beta_2=1"):
        FedYogi(beta_2=1)

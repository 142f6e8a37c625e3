"""The fixed point of the ring: what it rounds, by hand and by its bound, and what it refuses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fedbrats.privacy.secure_aggregation.ring import ROOM, FixedPoint, OutOfRange


def test_by_hand() -> None:
    point = FixedPoint(4, 8.0)
    coded = point.encode("w", np.array([1.5, -0.25, 0.03, 0.0], np.float32), 3)
    # 1.5 x 3 x 16, -0.25 x 3 x 16, 0.03 x 48 = 1.44
    assert coded.view(np.int64).tolist() == [72, -12, 1, 0]
    assert coded.dtype == np.uint64
    assert point.mean(coded + point.encode("w", np.array([-8.0] * 4), 1), 4).tolist() == [
        (72 - 128) / 64,
        (-12 - 128) / 64,
        (1 - 128) / 64,
        -2.0,
    ]


@pytest.mark.parametrize(("cases", "largest", "bits"), [(2040, 65536.0, 35), (1, 1.0, 62), (5, 3.0, 58)])
def test_the_finest_that_has_room(cases: int, largest: float, bits: int) -> None:
    point = FixedPoint.of(cases, largest)
    assert point.bits == bits
    most = point.encode("w", np.array([largest, -largest]), cases).view(np.int64)
    assert 2 ** (ROOM - 1) < most[0] == -most[1] <= 2**ROOM


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_the_mean_is_as_near_as_it_says(dtype: type) -> None:
    rng = np.random.default_rng(0)
    cases = {"A": 379, "B": 25, "C": 256, "D": 160, "E": 477}
    n, point = sum(cases.values()), FixedPoint.of(sum(cases.values()), 65536.0)
    start = rng.normal(0, 0.05, 2000).astype(dtype)
    sent = {site: (start + rng.normal(0, 1e-3, 2000)).astype(dtype) for site in cases}
    total = np.zeros(2000, np.uint64)
    for site, array in sent.items():
        total += point.encode("w", array, cases[site])
    found = point.mean(total, n, "float64")
    worst = Fraction(0)
    for i in range(2000):
        exact = sum(Fraction(float(sent[site][i])) * cases[site] for site in cases) / n
        worst = max(worst, abs(Fraction(found[i]) - exact))
    bound = point.error(len(cases), n)
    assert bound == 5 / (2 * n) * 2.0**-point.bits  # K / (2 N) 2^-f
    assert worst <= bound * (1 + 1e-6)  # float64 adds its own last digit
    assert worst > 0.05 * bound or dtype is np.float16  # whose few digits need no rounding
    mean = sum(cases[site] * sent[site].astype(np.float64) for site in cases) / n
    update = mean - start
    assert np.linalg.norm(found - mean) < 1e-6 * np.linalg.norm(update)


def test_a_float32_mean_is_the_float64_mean_to_its_last_digit() -> None:
    rng = np.random.default_rng(1)
    sent, cases = rng.normal(0, 0.05, (3, 5000)).astype(np.float32), [40, 54, 47]
    point = FixedPoint.of(sum(cases), 65536.0)
    total = sum(
        (point.encode("w", a, n) for a, n in zip(sent, cases, strict=True)), np.zeros(5000, np.uint64)
    )
    mean = (np.array(cases) @ sent.astype(np.float64)) / sum(cases)
    found = point.mean(total, sum(cases))
    assert found.dtype == np.float32
    large = np.abs(mean) > 1e-3
    assert (found[large] == mean[large].astype(np.float32)).mean() > 0.999
    assert (np.abs(found - mean) <= np.spacing(np.abs(mean).astype(np.float32)) / 2 + 1e-11).all()


@pytest.mark.parametrize("value", [8.001, -9.0, np.inf, -np.inf, np.nan, 1e300])
def test_what_has_no_room_is_refused_and_not_clipped(value: float) -> None:
    with pytest.raises(OutOfRange, match=r"bn\.running_var holds.*privacy\.secure_range") as caught:
        FixedPoint(4, 8.0).encode("bn.running_var", np.array([0.0, value]), 1)
    assert str(value) not in str(caught.value)


def test_a_sum_that_nobody_can_have_sent() -> None:
    point = FixedPoint.of(10, 8.0)
    good = point.encode("w", np.array([8.0, -8.0]), 10)
    assert point.mean(good, 10).tolist() == [8.0, -8.0]
    for wrong in (good + np.uint64(11), good - np.uint64(11)):
        with pytest.raises(OutOfRange, match="none of theirs"):
            point.mean(wrong, 10)


def test_too_many_cases_for_the_range() -> None:
    with pytest.raises(OutOfRange, match=r"lower privacy\.secure_range"):
        FixedPoint.of(2040, 2.0**33)

"""Average precision of a ranking of voxels, by hand and by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedbrats.metrics.growth import agreement, ranking


def line(*values: float) -> np.ndarray:
    return np.array(values, float).reshape(1, 1, -1)


def tumour(*values: int) -> np.ndarray:
    return np.array(values, bool).reshape(1, 1, -1)


def everywhere(times: np.ndarray) -> np.ndarray:
    return np.ones(times.shape, bool)


def test_by_hand() -> None:
    times = line(1, 2, 3, 4)
    found = ranking(times, tumour(1, 0, 1, 0), everywhere(times))
    # Recall rises at the first voxel (precision 1) and at the third (2 of 3), by a half each.
    assert found.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found.overlap_at_volume == pytest.approx(0.5)  # two voxels, one of them tumour
    np.testing.assert_allclose(
        agreement(found, times, tumour(1, 0, 1, 0), everywhere(times)).ravel(), [1, 0.5, 2 / 3, 1], rtol=1e-6
    )


def test_the_right_order_is_one_however_fast_and_the_wrong_one_is_not() -> None:
    hit = tumour(1, 1, 0, 0)
    for times in (line(1, 2, 3, 4), line(0.1, 50, 51, math.inf), line(1, 1, 2, 2)):
        assert ranking(times, hit, everywhere(times)).average_precision == 1
    backwards = line(4, 3, 2, 1)
    found = ranking(backwards, hit, everywhere(backwards)).average_precision
    assert found == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4)


def test_what_is_never_reached_is_missed() -> None:
    times, hit = line(1, math.inf, 2, math.inf), tumour(1, 1, 0, 0)
    found = ranking(times, hit, everywhere(times))
    assert found.average_precision == pytest.approx(0.5)
    np.testing.assert_allclose(agreement(found, times, hit, everywhere(times)).ravel(), [1, 0.5, 0.5, 1])


def test_only_the_region_counts() -> None:
    times, hit = line(1, 2, 3, 4), tumour(0, 1, 0, 1)
    region = tumour(0, 1, 1, 0)
    found = ranking(times, hit, region)
    assert (found.tumour, found.average_precision) == (1, 1.0)
    assert agreement(found, times, hit, region).ravel()[[0, 3]].tolist() == [0, 0]


def test_it_is_the_sum_over_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    times, hit = rng.integers(0, 12, (6, 7, 8)).astype(float), rng.random((6, 7, 8)) < 0.3
    region = rng.random(times.shape) < 0.8
    expected = before = 0.0
    for t in sorted(set(times[region])):
        grown = (times <= t) & region
        recall = (grown & hit).sum() / (hit & region).sum()
        expected += (recall - before) * (grown & hit).sum() / grown.sum()
        before = recall
    assert ranking(times, hit, region).average_precision == pytest.approx(expected)


@pytest.mark.parametrize(
    ("times", "hit", "said"),
    [
        (line(1, math.nan), tumour(1, 0), "NaN"),
        (line(1, 2), tumour(0, 0), "later tumour"),
        (line(math.inf, math.inf), tumour(1, 0), "ever reached"),
    ],
)
def test_what_cannot_be_ranked_is_refused(times: np.ndarray, hit: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ranking(times, hit, everywhere(times))

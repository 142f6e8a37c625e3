"""Sequential thresholds: painted in order, searched exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedbrats.data.regions import regions_from_labels
from fedbrats.metrics.overlap import dice
from fedbrats.postprocess.fitting import FitCase, Predicted
from fedbrats.postprocess.sequential_thresholds import GRID, SequentialThresholds, _mean_dice, _values
from tests.postprocess.toy_cases import CUBIC, case, line

HALF = SequentialThresholds(0.5, 0.5, 0.5)


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1, 1)


def test_regions_are_painted_over_each_other() -> None:
    """WT, TC, ET as regions. The fifth voxel is core without being tumour: painted all the same, as the paper says."""
    probabilities = np.stack(
        [row(0.4, 0.9, 0.9, 0.9, 0.1, 0.1), row(0, 0.2, 0.9, 0.9, 0.8, 0.1), row(0, 0, 0.2, 0.7, 0.2, 0.9)]
    )
    painted = HALF.apply(Predicted(line(*[0] * 6), probabilities, CUBIC))
    assert painted.dtype == np.uint8
    assert painted.ravel().tolist() == [0, 2, 1, 3, 1, 3]
    low = SequentialThresholds(0.3, 0.1, 0.1).apply(Predicted(line(*[0] * 6), probabilities, CUBIC))
    assert low.ravel().tolist() == [2, 1, 3, 3, 3, 3]


def test_classes_use_their_own_probability() -> None:
    """Background, NCR, ED, ET. The third voxel is tumour for sure, but no class alone exceeds 0.5: oedema."""
    probabilities = np.stack(
        [row(0.6, 0.1, 0, 0.1), row(0.1, 0.7, 0.4, 0.1), row(0.2, 0.1, 0.3, 0.1), row(0.1, 0.1, 0.3, 0.7)]
    )
    assert HALF.apply(Predicted(line(0, 0, 0, 0), probabilities, CUBIC)).ravel().tolist() == [0, 1, 2, 3]


def test_a_value_on_the_threshold_is_not_painted() -> None:
    on = SequentialThresholds(0.35, 0.35, 0.35)
    assert on.apply(Predicted(line(0), np.full((3, 1, 1, 1), 0.35, np.float32), CUBIC)).item() == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_the_table_of_all_combinations_is_exact(channels: int) -> None:
    """Every sixth combination against painting it and taking the Dice; values on thresholds included."""
    rng = np.random.default_rng(0)
    probabilities = np.round(rng.random((channels, 4, 5, 6)), 2).astype(np.float32)
    if channels == 4:
        probabilities /= probabilities.sum(axis=0)
    truth = rng.integers(0, 4, (4, 5, 6)).astype(np.uint8)
    table = _mean_dice(_values(probabilities), truth, [GRID] * 3)
    true = regions_from_labels(truth)
    for i, j, k in itertools.product(range(0, len(GRID), 6), repeat=3):
        step = SequentialThresholds(float(GRID[i]), float(GRID[j]), float(GRID[k]))
        found = regions_from_labels(step.apply(Predicted(truth, probabilities, CUBIC)))
        assert table[i, j, k] == pytest.approx(np.mean([dice(f, t) for f, t in zip(found, true)]))


def test_fitted_thresholds() -> None:
    """One voxel of each label; all are right only with WT in [0.72, 0.78), NCR in [0.33, 0.38), ET in [0.12, 0.17)."""
    truth = line(0, 2, 1, 3)
    probabilities = np.stack([row(0.72, 0.78, 0.9, 0.9), row(0.1, 0.33, 0.38, 0.9), row(0, 0, 0.12, 0.17)])
    found = SequentialThresholds().fit([FitCase(truth, probabilities, CUBIC, truth=truth)])
    assert found == {"wt": 0.75, "ncr": 0.35, "et": 0.15}


def test_ties_go_to_one_half() -> None:
    truth = line(0, 2, 1, 3)
    assert SequentialThresholds().fit([case(truth, truth)]) == {"wt": 0.5, "ncr": 0.5, "et": 0.5}


def test_given_thresholds_stay() -> None:
    truth = line(0, 2, 1, 3)
    assert SequentialThresholds(wt=0.42).fit([case(truth, truth)]) == {"ncr": 0.5, "et": 0.5}
    step = SequentialThresholds(wt=0.42)
    assert not step.fitted
    assert step.with_parameters({"ncr": 0.5, "et": 0.25}).name == "thresholds WT 0.42, NCR 0.5, ET 0.25"
    with pytest.raises(ValueError, match="wt is not fitted here; its parameters to fit: ncr, et"):
        step.with_parameters({"wt": 0.5})


def test_the_mean_is_over_cases_not_voxels() -> None:
    """A large case wants WT above 0.6, two small ones at 0.6 or below; two small ones weigh more than one large."""
    large = FitCase(
        line(*[0] * 50),
        np.stack([row(*[0.62] * 50)] * 3) * [[[[1]]], [[[0]]], [[[0]]]],
        CUBIC,
        truth=line(*[2] * 25, *[0] * 25),
    )
    small = FitCase(line(0), np.stack([row(0.62), row(0), row(0)]), CUBIC, truth=line(0))
    found = SequentialThresholds().fit([large, small, small])
    assert found["wt"] == 0.65  # drawn: 2 * 25 / 75 = 0.67 once; not drawn: 1 twice


def test_bad_thresholds_and_no_case() -> None:
    with pytest.raises(ValueError, match=r"et=1.0: a threshold lies in \[0, 1\)"):
        SequentialThresholds(et=1.0)
    with pytest.raises(ValueError, match="no validation case"):
        SequentialThresholds().fit([])
    with pytest.raises(ValueError, match="has not been fitted"):
        SequentialThresholds().apply(Predicted(line(0), np.zeros((3, 1, 1, 1), np.float32), CUBIC))

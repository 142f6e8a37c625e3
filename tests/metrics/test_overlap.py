import numpy as np
import pytest

from fedbrats.metrics.overlap import dice, sensitivity, specificity


def line(*on, size=10):
    mask = np.zeros((size, 1, 1), bool)
    mask[list(on)] = True
    return mask


def test_by_hand():
    """Prediction {2,3,4,5}, reference {4,5,6}: 2 shared, 2 false, 7 negatives of which 5 are right."""
    p, r = line(2, 3, 4, 5), line(4, 5, 6)
    assert dice(p, r) == pytest.approx(4 / 7)
    assert sensitivity(p, r) == pytest.approx(2 / 3)
    assert specificity(p, r) == pytest.approx(5 / 7)


@pytest.mark.parametrize(
    ("p", "r", "expected"),
    [
        (line(), line(), (1, 1, 1)),  # nothing to find, nothing found
        (line(), line(1, 2), (0, 0, 1)),  # missed
        (line(1, 2), line(), (0, 0, 0.8)),  # invented: 2 of 10 negatives
        (line(*range(10)), line(*range(10)), (1, 1, 0)),  # no negatives: 0, as in BraTS-2023
    ],
)
def test_empty_masks(p, r, expected):
    assert (dice(p, r), sensitivity(p, r), specificity(p, r)) == expected

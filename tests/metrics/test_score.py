import numpy as np
import pytest

from fedbrats.metrics.score import score_case
from fedbrats.metrics.table import worst
from tests.scored import CASE_COLUMNS, facts

KEYS = {
    "dice",
    "hd95",
    "sensitivity",
    "specificity",
    "lesion_dice",
    "lesion_hd95",
    "volume_true_ml",
    "volume_pred_ml",
}


def labels():
    """ET 4x4x4 inside NCR 6x6x6 inside ED 8x8x8."""
    volume = np.zeros((20, 20, 20), np.uint8)
    volume[6:14, 6:14, 6:14] = 2
    volume[7:13, 7:13, 7:13] = 1
    volume[8:12, 8:12, 8:12] = 3
    return volume


def test_regions_and_volumes_by_hand():
    """The prediction calls the whole core oedema: WT perfect, TC and ET missed. Voxels of 2 mm3."""
    truth, guess = labels(), labels()
    guess[guess != 0] = 2
    scores = score_case(guess, truth, (1, 1, 2), "captk")
    assert list(scores) == ["WT", "TC", "ET"]
    assert all(set(values) == KEYS for values in scores.values())
    assert [scores[r]["dice"] for r in scores] == [1, 0, 0]
    assert [scores[r]["hd95"] for r in scores] == pytest.approx([0, 373.1287, 373.1287], abs=1e-4)
    assert [scores[r]["lesion_hd95"] for r in scores] == [0, 374, 374]
    assert [scores[r]["volume_true_ml"] for r in scores] == pytest.approx([1.024, 0.432, 0.128])
    assert [scores[r]["volume_pred_ml"] for r in scores] == pytest.approx([1.024, 0, 0])


@pytest.mark.parametrize("convention", ["brats2023", "captk", "monai"])
def test_never_nan(convention):
    empty = np.zeros((8, 8, 8), np.uint8)
    full = np.full((8, 8, 8), 3, np.uint8)
    one = empty.copy()
    one[0, 0, 0] = 3
    for guess in (empty, full, one):
        for truth in (empty, full, one):
            values = [v for r in score_case(guess, truth, (1, 1, 1), convention).values() for v in r.values()]
            assert np.isfinite(values).all()
            assert all(type(v) is float for v in values)


def test_bad_input_is_refused():
    good = labels()
    with pytest.raises(ValueError, match="unknown 'deepmind'"):
        score_case(good, good, (1, 1, 1), "deepmind")
    with pytest.raises(ValueError, match="one shape"):
        score_case(good, good[1:], (1, 1, 1), "monai")
    with pytest.raises(ValueError, match=r"prediction: unexpected labels \[4\]"):
        score_case(good + (good == 3).astype(np.uint8), good, (1, 1, 1), "monai")
    with pytest.raises(ValueError, match="three positive numbers"):
        score_case(good, good, (1, 0, 1), "monai")


def test_worst_scores_and_columns():
    assert worst(facts("monai")) == {
        **{"dice": 0, "hd95": 374, "sensitivity": 0, "specificity": 0, "lesion_dice": 0, "lesion_hd95": 374}
    }
    assert CASE_COLUMNS[:6] == ("arm", "site", "case", "region", "dice", "hd95")
    assert CASE_COLUMNS[6:] == (
        *(
            "sensitivity",
            "specificity",
            "lesion_dice",
            "lesion_hd95",
            "volume_true_ml",
            "volume_pred_ml",
            "status",
        ),
    )

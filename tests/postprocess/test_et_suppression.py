"""ET suppression: the two conditions, what ET becomes, and the fitted pair."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.postprocess.et_suppression import EtSuppression
from fedbrats.postprocess.fitting import Predicted
from tests.postprocess.toy_cases import CUBIC, case, et, line, sure

STEP = EtSuppression(et_ml=2.0, ncr_ml=3.0)


@pytest.mark.parametrize(
    ("ets", "ncr", "dropped"), [(2, 4, True), (3, 4, False), (2, 3, False), (1, 9, True)]
)
def test_both_conditions(ets: int, ncr: int, dropped: bool) -> None:
    labels = et(ets, 12, ncr)
    found = STEP.apply(Predicted(labels, sure(labels), CUBIC))
    assert (found == 3).any() != dropped
    assert (found == 1).sum() == ncr + ets * dropped  # the network is sure of TC there


def test_next_best_of_classes() -> None:
    labels = line(3, 3, 1, 1, 1, 1)
    classes = np.zeros((4, 6, 1, 1), np.float32)
    classes[:, 0, 0, 0] = (0.1, 0.2, 0.3, 0.4)  # oedema comes next
    classes[:, 1, 0, 0] = (0.3, 0.1, 0.1, 0.5)  # background comes next
    assert STEP.apply(Predicted(labels, classes, CUBIC)).ravel().tolist() == [2, 0, 1, 1, 1, 1]


def test_regions_without_their_et_channel() -> None:
    labels = line(3, 3, 1, 1, 1, 1)
    regions = np.zeros((3, 6, 1, 1), np.float32)
    regions[:, 0, 0, 0] = (0.9, 0.4, 0.9)  # no core without ET: oedema
    regions[:, 1, 0, 0] = (0.2, 0.6, 0.9)  # core: necrosis, whatever WT says
    assert STEP.apply(Predicted(labels, regions, CUBIC)).ravel().tolist() == [2, 1, 1, 1, 1, 1]
    regions[:, 0, 0, 0] = (0.5, 0.5, 0.9)
    assert STEP.apply(Predicted(labels, regions, CUBIC)).ravel()[0] == 0


def test_fitted_pair() -> None:
    """False ET of 2 voxels beside 8 of NCR; true ET of 1 and 2 beside 3 and 0; true ET of 5 beside 9.

    Only cases with ET <= 2 and NCR > 3 may be changed: one. The largest such bound of those seen is 3.
    """
    cases = [
        case(et(2, 20, 8), et(0, 20, 8)),
        case(et(1, 20, 3), et(1, 20, 3)),
        case(et(2, 20, 0), et(2, 20, 0)),
        case(et(5, 20, 9), et(5, 20, 9)),
    ]
    assert EtSuppression().fit(iter(cases)) == {"et_ml": 2.0, "ncr_ml": 3.0}
    assert EtSuppression(ncr_ml=1.0).fit(cases) == {
        "et_ml": 0.0
    }  # with NCR > 1 it gains one case and loses another
    assert EtSuppression(et_ml=5.0).fit(cases) == {
        "ncr_ml": 9.0
    }  # for ET <= 5 every bound below 9 loses a case


def test_half_a_hit_is_worth_keeping_only_half() -> None:
    """Dropping a true ET of Dice 0.5 costs less than dropping a false one gains."""
    half = case(et(1, 20, 5), line(3, 3, 3, *[1] * 3, *[2] * 14))  # 2 * 1 / (1 + 3)
    false = case(et(2, 20, 5), et(0, 20, 5))
    assert EtSuppression().fit([half, false])["et_ml"] == 2.0
    assert EtSuppression().fit([half, half, false]) == {"et_ml": 0.0, "ncr_ml": 0.0}


def test_a_rule_without_effect_is_zero() -> None:
    assert EtSuppression().fit([case(et(3, 20, 4), et(3, 20, 4))]) == {"et_ml": 0.0, "ncr_ml": 0.0}


def test_names_and_bad_settings() -> None:
    assert STEP.name == "ET of 2 mL or less dropped beside NCR above 3 mL"
    assert not EtSuppression(et_ml=1.0).fitted
    assert EtSuppression(et_ml=1.0).with_parameters({"ncr_ml": 0.0}).fitted
    with pytest.raises(ValueError, match="ncr_ml=-2"):
        EtSuppression(ncr_ml=-2)
    with pytest.raises(ValueError, match="no validation case"):
        EtSuppression().fit([])

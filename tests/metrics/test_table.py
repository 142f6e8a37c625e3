"""The table of metrics: what is known of each, and metrics of somebody else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.metrics.hd95 import PENALTY
from fedbrats.metrics.score import score_case
from fedbrats.metrics.table import METRICS, Facts, Masks, Metric, facts_of, with_more, worst

HERE = "tests.metrics.test_table"


def overlap(name: str = "jaccard", failed: Any = 0.0) -> Metric:
    def of(masks: Masks) -> float:
        union = (masks.prediction | masks.reference).sum()
        return float((masks.prediction & masks.reference).sum() / union) if union else 1.0

    return Metric(name, "Jaccard", of, failed=failed)


def nothing() -> str:
    return "nothing"


def broken() -> Metric:
    raise ValueError("needs a table of weights")


def test_a_distance_knows_its_penalty_by_convention() -> None:
    assert facts_of(METRICS, "captk")["hd95"] == Facts("HD95", "mm", 1, True, PENALTY["captk"], "captk")
    assert facts_of(METRICS, "monai")["lesion_hd95"].failed == 374.0
    assert facts_of(METRICS, "monai")["lesion_hd95"].convention == ""  # there is one way only
    assert worst(facts_of(METRICS, "brats2023"))["hd95"] == 374.0
    with pytest.raises(ValueError, match=r"metrics\.convention: unknown 'x'"):
        facts_of(METRICS, "x")


def test_titles_as_printed() -> None:
    known = facts_of(METRICS, "captk")
    assert known["hd95"].named == "HD95 (mm)"
    assert known["hd95"].heading == "HD95 in mm (captk)"
    assert known["dice"].heading == known["dice"].named == "Dice"


def test_one_more_metric_is_scored_beside_the_others() -> None:
    more = with_more([{"_target_": f"{HERE}.overlap"}])
    truth, guess = np.zeros((2, 8, 8, 8), np.uint8)
    truth[2:6, 2:6, 2:6], guess[3:7, 2:6, 2:6] = 3, 3  # 64 voxels each, 48 in common
    for scores in score_case(guess, truth, (1, 1, 1), "brats2023", more).values():
        assert scores["jaccard"] == 48 / 80
        assert scores["dice"] == 0.75
    assert list(scores)[-3] == "jaccard"


def test_a_metric_without_a_number_is_named() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    metric = Metric("bad", "Bad", lambda masks: float("nan"))
    with pytest.raises(ValueError, match="metric bad of WT is nan, expected a finite number"):
        score_case(empty, empty, (1, 1, 1), "brats2023", [metric])


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("jaccard", r"metrics\.more\[0\]=jaccard: write a _target_"),
        ({"name": "x"}, r"metrics\.more\[0\]: has no _target_"),
        ({"_target_": f"{HERE}.overlaps"}, r"metrics\.more\[0\]\._target_=.*cannot be imported"),
        ({"_target_": f"{HERE}.overlap", "nam": "x"}, r"metrics\.more\[0\]\.nam: .* has no such option"),
        ({"_target_": f"{HERE}.overlap", "name": "dice"}, r"'dice', as another column is"),
        ({"_target_": f"{HERE}.overlap", "name": "region"}, r"'region', as another column is"),
        ({"_target_": f"{HERE}.overlap", "name": "Jaccard index"}, r"small letters, digits and underscores"),
        ({"_target_": f"{HERE}.overlap", "failed": float("inf")}, r"no finite score of a failed case"),
        ({"_target_": f"{HERE}.overlap", "failed": {"monai": 1.0}}, r"failed case for brats2023, captk"),
        ({"_target_": f"{HERE}.nothing"}, r"gives a str, not a fedbrats\.metrics\.table\.Metric"),
        ({"_target_": f"{HERE}.broken"}, r"metrics\.more\[0\]: .*needs a table of weights"),
    ],
)
def test_what_is_no_metric_is_refused_by_its_place(node: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_more([node])


def test_two_of_one_name_are_refused() -> None:
    node = {"_target_": f"{HERE}.overlap"}
    with pytest.raises(ConfigError, match=r"metrics\.more\[1\].*'jaccard', as another column is"):
        with_more([node, node])

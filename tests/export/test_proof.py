"""The proof: differences by hand, and the limits that refuse an export."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.data.regions import REGIONS
from fedbrats.export.proof import Found, Proof, compare

TRUTH = np.zeros((1, 1, 4), np.uint8)
TRUTH[..., :2] = 3
WORSE = np.array([[[3, 0, 0, 0]]], np.uint8)  # Dice of every region 2 * 1 / (1 + 2)


def found(labels: np.ndarray, probability: float = 0.5) -> Found:
    return Found(np.full((3, 1, 1, 4), probability, np.float32), labels)


def test_dice_lost_is_that_of_the_case_that_loses_most() -> None:
    cases = {"equal": TRUTH, "worse": WORSE}
    proof = compare(
        cases, lambda case: found(TRUTH), lambda case: found(cases[case], 0.625), lambda case: TRUTH, REGIONS
    )
    assert (proof.cases, proof.labelled, proof.largest_difference) == (2, 2, 0.125)
    assert proof.score_lost == pytest.approx(dict.fromkeys(REGIONS, 1 - 2 / 3))


def test_a_gain_is_no_loss_and_a_case_without_labels_is_held_against_the_original() -> None:
    gain = compare([0], lambda case: found(WORSE), lambda case: found(TRUTH), lambda case: TRUTH, ["WT"])
    assert gain.score_lost == {"WT": 0.0}
    blind = compare([0], lambda case: found(WORSE), lambda case: found(TRUTH), lambda case: None, ["WT"])
    assert blind.score_lost == pytest.approx({"WT": 1 / 3})
    assert blind.labelled == 0


def test_over_a_limit_nothing_is_exported() -> None:
    for value, labels, word in ((0.6, TRUTH, "max_difference=0.01"), (0.5, WORSE, "max_score_lost=0.02")):
        proof = compare(
            [0],
            lambda case: found(TRUTH),
            lambda case, v=value, seen=labels: found(seen, v),  # type: ignore[misc]
            lambda case: TRUTH,
            ["WT"],
            (0.01, 0.02),
        )
        with pytest.raises(ConfigError, match=rf"{word}.*nothing was exported"):
            proof.require()


def test_at_a_limit_it_is_exported_and_a_hair_over_it_not() -> None:
    for lost, passes in ((0.01, True), (np.nextafter(0.01, 1), False), (np.nan, False)):
        proof = Proof(1, 1, 0.5, {"WT": 0.0, "ET": float(lost)}, 1.0, 0.01)
        if passes:
            proof.require()
            continue
        with pytest.raises(
            ConfigError, match=rf"max_score_lost=0\.01: .* loses {lost:.3g} of ET Dice.*; or "
        ):
            proof.require("or ")


def test_seconds_are_means_where_both_were_measured() -> None:
    def timed(*seconds: float | None):
        return lambda case: Found(found(TRUTH).probabilities, TRUTH, seconds[case])

    both = compare([0, 1], timed(1.0, 3.0), timed(0.25, 0.75), lambda case: None, ["WT"])
    assert (both.seconds_original, both.seconds_exported) == (2.0, 0.5)
    one = compare([0, 1], timed(1.0, 3.0), timed(0.25, None), lambda case: None, ["WT"])
    assert (one.seconds_original, one.seconds_exported) == (None, None)


def test_probabilities_that_are_no_numbers_pass_no_limit() -> None:
    proof = compare(
        [0], lambda case: found(TRUTH), lambda case: found(TRUTH, np.nan), lambda case: None, ["WT"]
    )
    with pytest.raises(ConfigError, match="max_difference"):
        proof.require()


def test_without_a_case_there_is_no_proof() -> None:
    with pytest.raises(ConfigError, match=r"data: no case"):
        compare([], lambda case: found(TRUTH), lambda case: found(TRUTH), lambda case: None, ["WT"])

"""No reply of a site is used before it is checked, and no reply raises anything but BadReply."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedbrats.data.regions import REGIONS
from fedbrats.federation.server.replies import (
    BadReply,
    EvaluateReply,
    check_evaluate_reply,
    check_train_reply,
)
from tests.federation.toy import (
    ARRAYS,
    EXPECTED,
    case_row,
    error_message,
    evaluate_reply,
    request,
    train_reply,
)
from tests.scored import facts

NAN = float("nan")


def check(message: Message) -> None:
    check_train_reply(message, EXPECTED, 5)


def check_test(message: Message) -> EvaluateReply:
    return check_evaluate_reply(message, REGIONS, 2, facts("brats2023"))


# Training


def test_a_good_reply_is_decoded() -> None:
    reply = check_train_reply(train_reply(), EXPECTED, 5)
    np.testing.assert_array_equal(reply.arrays["w"], ARRAYS["w"].numpy())
    assert (reply.cases, reply.loss, reply.seconds) == (5, 0.5, 0.1)
    assert reply.bytes_up == sum(t.nbytes for t in ARRAYS.values()) + 2 * 128  # .npy headers of 128 bytes


def test_a_site_error_gives_its_reason_cut_short() -> None:
    with pytest.raises(BadReply, match="site error: disc full"):
        check(error_message("disc full"))
    with pytest.raises(BadReply) as caught:
        check(error_message("x" * 5000))
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("metric", ["num-examples", "loss", "seconds"])
@pytest.mark.parametrize("value", [None, NAN, float("inf"), [0.5, 0.5]], ids=str)
def test_a_missing_or_non_finite_metric_is_named(metric: str, value: Any) -> None:
    message = train_reply(without=metric) if value is None else train_reply(**{metric: value})
    with pytest.raises(BadReply, match=f"{metric} is .*expected a finite number"):
        check(message)


@pytest.mark.parametrize("weight", [-5, 0, 4, 6, 5.5, 1_000_000_000, 1e300])
def test_a_weight_other_than_the_registered_cases_is_refused(weight: float) -> None:
    with pytest.raises(BadReply, match=r"weight .*registered 5"):
        check(train_reply(**{"num-examples": weight}))


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_non_finite_arrays_are_refused_by_name(value: float) -> None:
    with pytest.raises(BadReply, match="b: non-finite"):
        check(train_reply({**ARRAYS, "b": torch.tensor([1.0, value, 1.0, 1.0])}))


@pytest.mark.parametrize("shape", [(1,), (4, 1), (2, 4)], ids=str)
def test_a_broadcastable_or_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadReply, match="w: shape"):
        check(train_reply({**ARRAYS, "w": torch.ones(shape)}))


def test_missing_and_extra_arrays_are_refused() -> None:
    with pytest.raises(BadReply, match="missing arrays"):
        check(train_reply({"w": ARRAYS["w"]}))
    with pytest.raises(BadReply, match="unexpected arrays"):
        check(train_reply({**ARRAYS, "spy": torch.ones(1)}))


def test_missing_extra_and_mistyped_records_are_refused() -> None:
    good = train_reply().content
    arrays, metrics = good["arrays"], good["metrics"]
    fakes = [
        RecordDict({"metrics": metrics}),
        RecordDict({"arrays": arrays}),
        RecordDict({"arrays": arrays, "metrics": metrics, "note": ConfigRecord({"a": 1})}),
        RecordDict({"arrays": ConfigRecord({"w": 1.0, "b": 1.0}), "metrics": metrics}),
        RecordDict({"arrays": MetricRecord({"w": 1.0, "b": 1.0}), "metrics": metrics}),
        RecordDict({"arrays": arrays, "metrics": arrays}),
        RecordDict(),
    ]
    for content in fakes:
        with pytest.raises(BadReply, match=r"expected (metrics and arrays|a ArrayRecord|a MetricRecord)"):
            check(Message(content, reply_to=request()))


def test_lying_array_metadata_and_rubbish_bytes_are_refused() -> None:
    record = ArrayRecord({n: Array(t.numpy()) for n, t in ARRAYS.items()})
    record["w"] = Array("float32", (4, 2), "numpy.ndarray", b"no array")
    with pytest.raises(BadReply, match="w: "):
        check(train_reply(record))


# Evaluation


def test_a_good_validation_reply_has_no_rows() -> None:
    reply = check_evaluate_reply(evaluate_reply(), REGIONS, 2)
    assert reply.scores == {"WT": 0.5, "TC": 0.5, "ET": 0.5}
    assert (reply.cases, reply.loss, reply.rows) == (2, 0.5, [])


def test_a_good_test_reply_has_rows() -> None:
    rows = [case_row("A#0000", region) for region in REGIONS]
    assert check_test(evaluate_reply(rows)).rows == rows


@pytest.mark.parametrize("dice", [-0.01, 1.01, NAN, 1e9])
def test_dice_outside_the_unit_interval_is_refused(dice: float) -> None:
    with pytest.raises(BadReply, match=r"Dice TC|dice-tc"):
        check_evaluate_reply(evaluate_reply(**{"dice-tc": dice}), REGIONS, 2)


@pytest.mark.parametrize("metric", ["num-examples", "loss", "seconds", "dice-wt", "dice-et"])
def test_a_missing_evaluation_metric_is_named(metric: str) -> None:
    with pytest.raises(BadReply, match=f"{metric} is None"):
        check_evaluate_reply(evaluate_reply(without=metric), REGIONS, 2)


@pytest.mark.parametrize("weight", [0, -2, 3, 1_000_000_000])
def test_an_evaluation_weight_other_than_the_registered_cases_is_refused(weight: int) -> None:
    # A weight of 0 alone would divide the validation mean by zero; a huge one would decide it.
    with pytest.raises(BadReply, match=r"weight .*registered 2"):
        check_evaluate_reply(evaluate_reply(**{"num-examples": weight}), REGIONS, 2)


def test_an_evaluation_error_is_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="site error: gone"):
        check_test(error_message("gone"))


@pytest.mark.parametrize(
    "rows",
    [
        "not json",
        "5",
        "null",
        '"text"',
        '{"case": 1}',
        "[1, 2]",
        "[" * 100_000,
        json.dumps([{"case": "A#0000", "region": "WT", "status": "ok"}]),
        json.dumps([case_row("A#0000", "WT", dice=NAN)]),
        json.dumps([case_row("A#0000", "WT", hd95=float("inf"))]),
        json.dumps([case_row("A#0000", "WT", dice="0.5")]),
        json.dumps([case_row("A#0000", "WT", dice=None)]),
        json.dumps([case_row("A#0000", "WT", status=1)]),
        json.dumps([case_row("A#0000", "WT", volume_true_ml=10**400)]),
    ],
    ids=lambda rows: rows[:40],
)
def test_rows_that_cases_csv_cannot_hold_are_refused(rows: str) -> None:
    with pytest.raises(BadReply, match="case rows cannot be used"):
        check_test(evaluate_reply(rows))


STEP = {
    "case": "A#0000",
    "region": "ET",
    "step": "raw",
    "order": 0,
    "dice": 0.5,
    "hd95": 3.0,
    "changed_voxels": 0,
}
BIN = {"region": "ET", "bin_low": 0.0, "bin_high": 0.1, "voxels": 5, "sum_probability": 0.1, "sum_truth": 0}


def test_the_tables_of_a_test_arrive() -> None:
    reply = check_test(evaluate_reply([], steps=json.dumps([STEP]), reliability=json.dumps([BIN])))
    assert (reply.steps, reply.reliability) == ([STEP], [BIN])


@pytest.mark.parametrize("table", ["steps", "reliability"])
@pytest.mark.parametrize("change", [{"region": 3}, {"dice": NAN}, {"sum_truth": None}, {"hd95": "far"}])
def test_tables_that_cannot_be_used_are_refused(table: str, change: dict[str, object]) -> None:
    good = STEP if table == "steps" else BIN
    if not change.keys() & good.keys():
        return
    with pytest.raises(BadReply, match="rows cannot be used"):
        check_test(evaluate_reply([], **{table: json.dumps([{**good, **change}])}))


def test_rows_are_due_at_the_test_and_only_there() -> None:
    with pytest.raises(BadReply, match="expected metrics and cases"):
        check_test(evaluate_reply())
    with pytest.raises(BadReply, match="expected metrics"):
        check_evaluate_reply(evaluate_reply([]), REGIONS, 2)


# What there can be


def rows_of(cases: int) -> list[dict[str, Any]]:
    return [case_row(f"A#{i:04d}", region) for i in range(cases) for region in REGIONS]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dice": 5.0}, r"dice is 5\.0, expected a value in \[0, 1\]"),
        ({"dice": -0.01}, "dice is -0.01"),
        ({"specificity": 1.5}, "specificity is 1.5"),
        ({"lesion_dice": 1e12}, "lesion_dice is"),
        ({"hd95": -1.0}, r"hd95 is -1\.0, expected a value in \[0, 2000\]"),
        ({"lesion_hd95": 1e6}, "lesion_hd95 is 1000000.0"),
        ({"uncertainty": 1.2}, "uncertainty is 1.2"),
        ({"volume_pred_ml": -3.0}, "volume_pred_ml is -3.0"),
        ({"volume_true_ml": 1e12}, "volume_true_ml is"),
        ({"region": "WT2"}, "region 'WT2', expected WT, TC, ET"),
        ({"case": "A" * 5000}, "row "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_row_beyond_what_its_metric_can_be_is_refused(change: dict[str, Any], reason: str) -> None:
    rows = rows_of(2)
    assert len(check_test(evaluate_reply(rows)).rows) == 6
    with pytest.raises(BadReply, match=f"case rows cannot be used: {reason}"):
        check_test(evaluate_reply([*rows[:-1], {**rows[-1], **change}]))


def test_a_length_may_exceed_its_penalty_and_a_sum_round() -> None:
    rows = rows_of(2)
    rows[0] |= {"hd95": 600.0, "dice": 1 + 1e-9}
    assert check_test(evaluate_reply(rows)).rows[0]["hd95"] == 600.0


def test_more_rows_than_there_are_cases_are_refused() -> None:
    with pytest.raises(BadReply, match=r"9 rows, expected a list of at most 6"):
        check_test(evaluate_reply(rows_of(3)))
    with pytest.raises(BadReply, match=r"two rows of the same case, region"):
        check_test(evaluate_reply([*rows_of(1), *rows_of(1)]))
    with pytest.raises(BadReply, match="no text of at most 6 rows"):  # before it is decoded
        check_test(evaluate_reply(rows_of(100_000)))
    with pytest.raises(BadReply, match="no text of at most 6 rows"):
        check_test(evaluate_reply([{**case_row("A#0000", "WT"), "more": "x" * 40_000}]))


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("steps", [{**STEP, "order": 32}]),
        ("steps", [{**STEP, "dice": 5.0}]),
        ("steps", [STEP, STEP]),
        ("steps", [{**STEP, "region": "all"}]),
        ("steps", [{**STEP, "changed_voxels": -1}]),
        ("reliability", [{**BIN, "bin_high": 2.0}]),
        ("reliability", [BIN, BIN]),
        ("reliability", [{**BIN, "bin_low": i / 1000} for i in range(301)]),
        ("reliability", [{**BIN, "sum_truth": -5}]),
    ],
)
def test_the_other_tables_too(table: str, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(BadReply, match="case rows cannot be used"):
        check_test(evaluate_reply([], **{table: json.dumps(rows)}))


def test_a_long_reason_is_cut() -> None:
    row = case_row("A#0000", "WT", status="failed: " + "x" * 3000)
    assert len(check_test(evaluate_reply([row])).rows[0]["status"]) == 300


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loss": 1e12}, "loss is 1e"),
        ({"loss": -1e9}, "loss is -1e"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"seconds": 1e12}, "seconds is 1e"),
    ],
)
def test_numbers_beyond_what_there_can_be_are_refused(change: dict[str, float], reason: str) -> None:
    with pytest.raises(BadReply, match=reason):
        check(train_reply(**change))
    with pytest.raises(BadReply, match=reason):
        check_evaluate_reply(evaluate_reply(**change), REGIONS, 2)


def test_steps_beyond_a_round_are_refused() -> None:
    with pytest.raises(BadReply, match="steps is 1e"):
        check(train_reply(steps=1e15))


def test_a_site_without_a_training_case_has_no_weight() -> None:
    with pytest.raises(BadReply, match="registered no training case"):
        check_train_reply(train_reply(**{"num-examples": 0}), EXPECTED, 0)

"""A reply is checked before it is used: nothing a site sends can stop the run or spoil the model unnoticed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedbrats.federation.exchange import BadArrays, Signature, from_record, require_finite, size_bytes
from fedbrats.metrics.score import SCORES, VOLUMES

REASON_LENGTH = 300


class BadReply(ValueError):
    """A reply that is left out; the message is the reason the report gives."""


@dataclass(frozen=True)
class TrainReply:
    """A usable result of one site's local training."""

    arrays: dict[str, np.ndarray]
    cases: int
    loss: float
    seconds: float
    bytes_up: int


@dataclass(frozen=True)
class EvaluateReply:
    """A usable result of evaluating one model on one site's cases."""

    cases: int
    loss: float
    dice: dict[str, float]  # by region
    seconds: float
    rows: list[dict[str, Any]]  # one per case and region, with the site's own pseudonyms


def _content(message: Message, **kinds: type) -> Any:
    """The records of a reply; every one must be of the kind named for it. Raises BadReply."""
    if message.has_error():
        raise BadReply(f"site error: {message.error.reason or message.error.code}"[:REASON_LENGTH])
    content = message.content
    if set(content) != set(kinds):
        raise BadReply(f"records {sorted(content)}, expected {' and '.join(kinds)}"[:REASON_LENGTH])
    for name, kind in kinds.items():
        if not isinstance(content[name], kind):
            raise BadReply(f"{name} is a {type(content[name]).__name__}, expected a {kind.__name__}")
    return content


def _number(metrics: Any, key: str) -> float:
    value = metrics.get(key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise BadReply(f"{key} is {value!r}, expected a finite number")
    return float(value)


def check_train_reply(message: Message, expected: Signature, registered_cases: int) -> TrainReply:
    """Decode a training reply.

    Args:
        message: the site's reply, an error reply included.
        expected: the agreed arrays.
        registered_cases: training cases the site registered when it joined; its weight must equal them.

    Raises:
        BadReply: site error; missing or unexpected records or arrays; other shape (a broadcastable one too) or
            dtype; non-finite values or loss; a weight that is not the registered number of cases.
    """
    content = _content(message, arrays=ArrayRecord, metrics=MetricRecord)
    metrics = content["metrics"]
    _check_weight(metrics, registered_cases)
    try:
        arrays = from_record(content["arrays"], expected)
        require_finite(arrays)
    except BadArrays as error:
        raise BadReply(str(error)[:REASON_LENGTH]) from error
    loss, seconds = _number(metrics, "loss"), _number(metrics, "seconds")
    return TrainReply(arrays, registered_cases, loss, seconds, size_bytes(content["arrays"]))


def check_evaluate_reply(
    message: Message, regions: tuple[str, ...], registered_cases: int, *, with_rows: bool
) -> EvaluateReply:
    """Decode an evaluation reply.

    Args:
        message: the site's reply, an error reply included.
        regions: whose Dice it must hold.
        registered_cases: cases of this split the site registered when it joined; its weight must equal them.
        with_rows: whether one row per case and region belongs to it (the test at the end).

    Raises:
        BadReply: site error, missing or unexpected records, a loss that is not finite, a Dice outside [0, 1], a
            weight that is not the registered number of cases, rows that are not what `cases.csv` needs.
    """
    kinds: dict[str, type] = {"metrics": MetricRecord} | ({"cases": ConfigRecord} if with_rows else {})
    content = _content(message, **kinds)
    metrics = content["metrics"]
    _check_weight(metrics, registered_cases)
    dice = {region: _number(metrics, f"dice-{region.lower()}") for region in regions}
    for region, value in dice.items():
        if not 0 <= value <= 1:
            raise BadReply(f"Dice {region} is {value}, expected a value in [0, 1]")
    rows = _case_rows(content["cases"].get("rows")) if with_rows else []
    return EvaluateReply(registered_cases, _number(metrics, "loss"), dice, _number(metrics, "seconds"), rows)


def _check_weight(metrics: Any, registered_cases: int) -> None:
    cases = _number(metrics, "num-examples")
    if cases != registered_cases:
        raise BadReply(f"weight {cases:g}, but the site registered {registered_cases} cases")


def _case_rows(text: Any) -> list[dict[str, Any]]:
    """The rows of one evaluation, each with a case, a region, a status and finite numbers for the rest."""
    try:
        rows = json.loads(text)
        for row in rows:
            words = [row[key] for key in ("case", "region", "status")]
            numbers = [row[key] for key in (*SCORES, *VOLUMES)]
            if not all(isinstance(word, str) for word in words) or not all(map(math.isfinite, numbers)):
                raise ValueError(f"row {row}")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadReply(
            f"case rows cannot be used: {type(error).__name__}: {error}"[:REASON_LENGTH]
        ) from error
    return rows

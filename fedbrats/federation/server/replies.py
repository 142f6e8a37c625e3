"""A reply is checked before it is used: nothing a site sends can stop the run or spoil the model unnoticed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from torch import Tensor

from fedbrats.algorithms.base import Transfer
from fedbrats.arrays import BadArrays, Signature, require_finite
from fedbrats.federation.server.reply_aggregates import read_aggregates
from fedbrats.federation.server.reply_rows import classified, read_rows, thresholded
from fedbrats.federation.server.reply_rows import forms as forms_of_rows
from fedbrats.federation.server.reply_scores import read_scores
from fedbrats.federation.transfer import forms, restored
from fedbrats.federation.wire import PROGRESS, from_record, size_bytes
from fedbrats.metrics.table import Facts
from fedbrats.tasks.classification import CLASSIFICATION
from fedbrats.tasks.segmentation import SEGMENTATION
from fedbrats.tasks.task import Task

REASON_LENGTH = 300
UNREACHABLE = (3, 4, 5)  # flwr.common.constant.ErrorCode: a message, a reply, a node that is not to be had
LOSSES = (-1e6, 1e6)  # of a training loss or a mean over cases, whatever the loss function
SECONDS = (0.0, 1e7)  # four months
BEFORE_AND_AFTER = ("loss-before", "loss-after")
MOST_STEPS = 1e7  # of one round
# Entries of a record; how long each may be is checked where it is decoded.
MOST_ARRAYS, MOST_VALUES = 10_000, 200
DAMAGED = 100  # a number that Flower has not: a reply that could not be put together
STOPPED = "stopped: "  # begins the status of a site that trains no further


class BadReply(ValueError):
    """A reply that is left out; the message is the reason the report gives."""


@dataclass(frozen=True)
class Changed:
    """Of what a reply of changes is made (`transfer.py`).

    way: how they travel; model: that was sent; trained: names of the arrays that are trained.
    """

    way: Transfer
    model: Mapping[str, Tensor]
    trained: Collection[str]


@dataclass(frozen=True)
class TrainReply:
    """A usable result of one site's local training."""

    arrays: dict[str, np.ndarray]
    cases: int
    steps: int
    loss: float | None  # None where it stays at the site
    beside: dict[str, np.ndarray]
    seconds: float
    bytes_up: int

    def columns(self) -> dict[str, Any]:
        """Of `rounds.csv`."""
        loss = "" if self.loss is None else self.loss
        return {
            "cases": self.cases,
            "steps": self.steps,
            "loss": loss,
            "seconds": round(self.seconds, 4),
            "bytes_up": self.bytes_up,
        }


@dataclass(frozen=True)
class Stopped:
    """A site that trains no further, and why."""

    reason: str

    def columns(self) -> dict[str, Any]:
        """Of `rounds.csv`."""
        return {"status": f"{STOPPED}{self.reason}", "bytes_up": 0}


@dataclass(frozen=True)
class EvaluateReply:
    """A usable result of evaluating one model on one site's cases."""

    cases: int
    loss: float  # NaN of what has none, the floor
    scores: dict[str, float]  # main score by region
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)  # one per case and region, under pseudonyms
    steps: list[dict[str, Any]] = field(default_factory=list)  # scores after each step of post-processing
    reliability: list[dict[str, Any]] = field(default_factory=list)  # by region and bin of the probability
    aggregates: list[dict[str, Any]] = field(default_factory=list)  # in place of rows that stay at the site
    withheld: list[str] = field(default_factory=list)  # what else stays there, and by which rule of the site
    task: Task = SEGMENTATION

    def columns(self) -> dict[str, Any]:
        """Of `rounds.csv`."""
        loss = "" if math.isnan(self.loss) else self.loss
        values = {"cases": self.cases, "loss": loss, **self.task.round_columns(self.scores)}
        return values | {"seconds": round(self.seconds, 4), "bytes_up": 0}


def content_of(message: Message, **kinds: type) -> Any:
    """The records of a reply; every one must be of the kind named for it. Raises BadReply."""
    if message.has_error():
        error = message.error
        what = "site not reachable" if error.code in UNREACHABLE else "site error"
        what = "damaged reply" if error.code == DAMAGED else what
        raise BadReply(f"{what}: {error.reason or error.code}"[:REASON_LENGTH])
    content = message.content
    if set(content) != set(kinds):
        raise BadReply(f"records {sorted(content)}, expected {' and '.join(kinds)}"[:REASON_LENGTH])
    for name, kind in kinds.items():
        if not isinstance(content[name], kind):
            raise BadReply(f"{name} is a {type(content[name]).__name__}, expected a {kind.__name__}")
        if len(content[name]) > (MOST_ARRAYS if kind is ArrayRecord else MOST_VALUES):
            raise BadReply(f"{name} has {len(content[name])} entries, more than any reply")
    return content


def number_of(metrics: Any, key: str, low: float = -math.inf, high: float = math.inf) -> float:
    """The finite number `key` of `metrics`, which lies in [low, high]. Raises BadReply."""
    value = metrics.get(key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise BadReply(f"{key} is {value!r}, expected a finite number")
    if not low <= value <= high:
        raise BadReply(f"{key} is {value:g}, expected a value in [{low:g}, {high:g}]")
    return float(value)


def stop_reason(message: Message) -> str:
    """Why a site trains no further (its privacy budget), "" for any other reply.

    Raises:
        BadReply: it stops without a reason.
    """
    if message.has_error() or set(message.content) != {"stopped"}:
        return ""
    reason = content_of(message, stopped=ConfigRecord)["stopped"].get("reason")
    if not isinstance(reason, str) or not reason:
        raise BadReply("stopped without a reason")
    return reason[:REASON_LENGTH]


def check_train_reply(
    message: Message,
    expected: Signature,
    registered_cases: int,
    *,
    with_loss: bool = True,
    beside: Signature | None = None,
    changed: Changed | None = None,
) -> TrainReply:
    """Decode a training reply.

    Args:
        message: the site's reply, an error reply included.
        expected: the agreed arrays.
        registered_cases: training cases the site registered when it joined; its weight must equal them.
        with_loss: whether the reply must tell its training loss; if not, it must not.
        beside: what must travel beside the arrays; if nothing, nothing may.
        changed: where the reply holds what the site has changed of the model.

    Raises:
        BadReply: site error; missing or unexpected records or arrays; other shape (a broadcastable one too) or
            dtype; non-finite values; a loss, a number of steps or seconds beyond what there can be; a weight that is
            not the registered number of cases, or none.
    """
    wanted = {"arrays": expected, **({"beside": beside} if beside else {})}
    content = content_of(message, metrics=MetricRecord, **dict.fromkeys(wanted, ArrayRecord))
    metrics, found = content["metrics"], {"beside": dict[str, np.ndarray]()}
    if registered_cases < 1:
        raise BadReply("the site registered no training case, so its reply has no weight")
    _check_weight(metrics, registered_cases)
    try:
        for name, form in wanted.items():
            if name == "arrays" and changed is not None:
                agreed = forms(changed.way, form, changed.trained, content[name])
                changes = from_record(content[name], agreed)
                require_finite(changes)
                found[name] = restored(changed.model, changes)
            else:
                found[name] = from_record(content[name], form)
            require_finite(found[name])
    except BadArrays as error:
        raise BadReply(str(error)[:REASON_LENGTH]) from error
    seconds, loss = number_of(metrics, "seconds", *SECONDS), None
    steps = number_of(metrics, "steps", high=MOST_STEPS)
    if not steps >= 1 or steps != int(steps):
        raise BadReply(f"steps is {steps:g}, expected a whole number of at least 1")
    if with_loss:
        loss = number_of(metrics, "loss", *LOSSES)
    elif "loss" in metrics:
        raise BadReply("a training loss, which a private site keeps at home")
    elif not (isinstance(epsilon := metrics.get("epsilon"), int | float) and epsilon >= 0):
        raise BadReply(f"epsilon is {epsilon!r}, expected what the site has spent")
    return TrainReply(
        found["arrays"], registered_cases, int(steps), loss, found["beside"], seconds, size_bytes(content)
    )


def check_evaluate_reply(
    message: Message,
    regions: tuple[str, ...],
    registered_cases: int,
    metrics: Mapping[str, Facts] | None = None,
    task: Task = SEGMENTATION,
    floor: bool = False,
) -> EvaluateReply:
    """Decode an evaluation reply.

    Args:
        message: the site's reply, an error reply included.
        regions: whose main score it must hold.
        registered_cases: cases of this split the site registered when it joined; its weight must equal them.
        metrics: that every row of the test at the end must hold, one per case and region, or that are summed up where
            a site keeps its cases' results at home; None: there are no rows.
        task: of the run.
        floor: whether it is about the floor, which has neither a loss nor an uncertainty.

    Raises:
        BadReply: site error, missing or unexpected records, a loss beyond `LOSSES`, a main score outside [0, 1], a
            weight that is not the registered number of cases, rows that are not what `cases.csv` needs or beyond what
            their metric can be.
    """
    summed = metrics is not None and message.has_content() and "aggregates" in message.content
    table = {} if metrics is None else {"aggregates" if summed else "cases": ConfigRecord}
    content = content_of(message, metrics=MetricRecord, **table)
    found = content["metrics"]
    _check_weight(found, registered_cases)
    scores = {region: number_of(found, task.reply_key(region)) for region in regions}
    for region, value in scores.items():
        if not 0 <= value <= 1:
            raise BadReply(f"{task.title} {region} is {value}, expected a value in [0, 1]")
    tables: dict[str, list[Any]] = {}
    try:
        if summed:
            record = content["aggregates"]
            if task is CLASSIFICATION:
                told = read_scores(record, registered_cases)
            else:
                told = read_aggregates(record, metrics or {}, regions, registered_cases)
            tables = {"aggregates": told.rows, "reliability": told.reliability, "withheld": told.withheld}
        elif metrics is not None:
            rows_of = thresholded if floor else classified if task is CLASSIFICATION else forms_of_rows
            for name, form in rows_of(metrics, regions, registered_cases).items():
                tables[name] = read_rows(content["cases"].get(name), form, regions)
    except ValueError as error:
        raise BadReply(f"case rows cannot be used: {error}"[:REASON_LENGTH]) from error
    for row in tables.get("rows", []):
        row["status"] = row["status"][:REASON_LENGTH]
    seconds = number_of(found, "seconds", *SECONDS)
    loss = math.nan if floor else number_of(found, "loss", *LOSSES)
    return EvaluateReply(registered_cases, loss, scores, seconds, **tables, task=task)


def take_progress(message: Message, validation_cases: int) -> tuple[float, float]:
    """The validation loss before and after training, taken out of a reply.

    Raises:
        BadReply: there is none, or it is not of the registered cases.
    """
    record = message.content.pop(PROGRESS) if PROGRESS in message.content else None
    if not isinstance(record, MetricRecord) or set(record) != {"num-examples", *BEFORE_AND_AFTER}:
        raise BadReply("no validation losses before and after training, which the strategy needs")
    _check_weight(record, validation_cases)
    before, after = (number_of(record, key, *LOSSES) for key in BEFORE_AND_AFTER)
    return before, after


def _check_weight(metrics: Any, registered_cases: int) -> None:
    cases = number_of(metrics, "num-examples")
    if cases != registered_cases:
        raise BadReply(f"weight {cases:g}, but the site registered {registered_cases} cases")

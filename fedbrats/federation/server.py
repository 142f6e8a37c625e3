"""What the server does: ask the sites round by round, check and aggregate their replies, keep the models.

It speaks to a Flower `Grid` and knows no engine. All arms advance together: in each round every cohort's sites train,
then every cohort's model is validated, then everything is checkpointed, so one resume point serves all arms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedbrats.algorithms.fedavg import FedAvg, WeightedMean
from fedbrats.data.regions import REGIONS
from fedbrats.federation import checkpoint, record
from fedbrats.federation.arms import POOLED, Cohort
from fedbrats.federation.asking import FederationError, Member, Request, replies_in_order
from fedbrats.federation.checkpoint import Model
from fedbrats.federation.exchange import (
    BadArrays,
    Signature,
    require_finite,
    signature,
    size_bytes,
    to_record,
)
from fedbrats.federation.replies import (
    BadReply,
    EvaluateReply,
    arrived,
    check_evaluate_reply,
    check_train_reply,
)


class Observer(Protocol):
    """Where progress is shown."""

    def round_started(self, round_: int, expected_replies: int) -> None:
        """A phase of `round_` begins that waits for so many replies."""

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None:
        """One site has answered, or failed to."""

    def round_finished(self, round_: int, rows: list[record.Row]) -> None:
        """`rows` are those of `rounds.csv`."""


@dataclass
class Federation:
    """Everything the server holds during a run."""

    algorithm: FedAvg
    cohorts: list[Cohort]
    models: dict[str, Model]  # by arm
    folder: Path  # run folder
    rounds: int
    observer: Observer
    regions: tuple[str, ...] = REGIONS  # that the network predicts
    evaluate_every: int = 1
    checkpoint_every: int = 1
    keep_checkpoints: int = 1
    lr_factor: Callable[[list[float]], float] = field(default=lambda losses: 1.0)  # of the validation losses
    finished_round: int = 0
    checkpointed: int = 0
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def expected(self) -> Signature:
        """The arrays that every reply must hold."""
        return signature(next(iter(self.models.values())).arrays)


def serve(grid: Grid, fed: Federation) -> None:
    """Train all cohorts for the remaining rounds; `fed.members` must be known.

    Raises:
        FederationError: `strategy.max_failed_rounds` rounds failed in a row in the federated arm (without one, in the
            pooled arm). The last checkpoint and all rows stay on disk.
    """
    for round_ in range(fed.finished_round + 1, fed.rounds + 1):
        rows = run_round(grid, fed, round_)
        record.append(fed.folder / "rounds.csv", rows)
        fed.finished_round = round_
        if round_ % fed.checkpoint_every == 0 or round_ == fed.rounds:
            folder = fed.folder / "checkpoints"
            checkpoint.save_checkpoint(folder, round_, fed.models, keep=fed.keep_checkpoints)
            fed.checkpointed = round_
        fed.observer.round_finished(round_, rows)
        _stop_after_failures(fed, round_, rows)


def run_round(grid: Grid, fed: Federation, round_: int) -> list[record.Row]:
    """Train and, where it is due, validate every cohort once; rows of `rounds.csv`."""
    rows, summaries = _train_phase(grid, fed, round_)
    if round_ % fed.evaluate_every == 0 or round_ == fed.rounds:
        val_rows, dice = _validate_phase(grid, fed, round_)
        rows += val_rows
        for arm, scores in dice.items():
            summaries[arm].update(record.dice_columns(scores))
    return rows + list(summaries.values())


def _train_phase(grid: Grid, fed: Federation, round_: int) -> tuple[list[record.Row], dict[str, record.Row]]:
    requests = _requests(
        fed,
        {"round": round_, "checkpointed": fed.checkpointed},
        [(c, s) for c in fed.cohorts for s in c.sites],
        {c.arm: {"lr-factor": fed.lr_factor(fed.models[c.arm].val_losses)} for c in fed.cohorts},
    )
    fed.observer.round_started(round_, len(requests))
    expected, started = fed.expected, time.perf_counter()
    means = {cohort.arm: WeightedMean() for cohort in fed.cohorts}
    losses = {cohort.arm: 0.0 for cohort in fed.cohorts}
    rows = []
    phase = (MessageType.TRAIN, str(round_), fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        arm, site = request.cohort.arm, request.site
        down = size_bytes(request.content["arrays"]) if request.cohort.federated else 0
        try:
            reply = check_train_reply(
                arrived(message, fed.algorithm.timeout), expected, fed.members[site].train
            )
        except BadReply as error:
            rows.append(record.row(round_, arm, site, "train", f"failed: {error}", bytes_down=down))
        else:
            weight = fed.algorithm.weight(reply.cases)
            means[arm].add(reply.arrays, weight)
            losses[arm] += weight * reply.loss
            up = reply.bytes_up if request.cohort.federated else 0
            values: dict[str, Any] = {"cases": reply.cases, "loss": reply.loss}
            values["seconds"] = round(reply.seconds, 4)
            rows.append(record.row(round_, arm, site, "train", **values, bytes_down=down, bytes_up=up))
        fed.observer.reply(arm, site, "train", rows[-1]["status"] == "ok", rows[-1]["seconds"] or 0.0)
    seconds = time.perf_counter() - started
    summaries = {c.arm: _aggregate(fed, c, means[c.arm], losses[c.arm], round_) for c in fed.cohorts}
    for arm, summary in summaries.items():
        mine = [r for r in rows if r["arm"] == arm]
        summary["seconds"] = round(seconds, 4)
        summary["bytes_down"] = sum(r["bytes_down"] for r in mine)
        summary["bytes_up"] = sum(r["bytes_up"] or 0 for r in mine)
    return rows, summaries


def _aggregate(fed: Federation, cohort: Cohort, mean: WeightedMean, loss: float, round_: int) -> record.Row:
    """Replace the cohort's model by the mean of its replies, or keep it when there are too few."""
    model, asked = fed.models[cohort.arm], len(cohort.sites)
    needed = fed.algorithm.needed(asked)
    if mean.replies < needed:
        model.failed_in_a_row += 1
        status = (
            f"failed: {mean.replies} of {asked} replies usable, quorum needs {needed}; the old model stays"
        )
        return record.row(round_, cohort.arm, record.SERVER, "round", status)
    try:
        require_finite({name: array.numpy() for name, array in mean.arrays.items()})
    except BadArrays as error:  # finite replies whose sum is beyond float32
        model.failed_in_a_row += 1
        status = f"failed: mean of the replies, {error}; the old model stays"
        return record.row(round_, cohort.arm, record.SERVER, "round", status)
    model.arrays = mean.arrays
    model.failed_in_a_row = 0
    values: dict[str, Any] = {"cases": int(mean.weight), "loss": loss / mean.weight}
    return record.row(round_, cohort.arm, record.SERVER, "round", **values)


def _validate_phase(
    grid: Grid, fed: Federation, round_: int
) -> tuple[list[record.Row], dict[str, dict[str, float]]]:
    pairs = [(c, s) for c in fed.cohorts for s in c.sites if fed.members[s].val]
    requests = _requests(fed, {"round": round_, "split": "val"}, pairs)
    fed.observer.round_started(round_, len(requests))
    good: dict[str, list[EvaluateReply]] = {c.arm: [] for c in fed.cohorts}
    rows = []
    phase = (MessageType.EVALUATE, str(round_), fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        rows.append(_evaluation_row(fed, request, message, round_, "val", good[request.cohort.arm]))
    asked = {c.arm: sum(1 for pair in pairs if pair[0] is c) for c in fed.cohorts}
    dice = {}
    for arm, replies in good.items():
        if not replies:
            continue
        cases = sum(r.cases for r in replies)
        dice[arm] = {r: sum(x.cases * x.dice[r] for x in replies) / cases for r in fed.regions}
        if len(replies) == asked[arm]:  # a mean over fewer sites would not be comparable between rounds
            fed.models[arm].val_losses.append(sum(x.cases * x.loss for x in replies) / cases)
            _keep_if_best(fed, arm, round_, sum(dice[arm].values()) / len(fed.regions))
    return rows, dice


def _evaluation_row(
    fed: Federation,
    request: Request,
    message: Message | None,
    round_: int,
    phase: str,
    good: list[EvaluateReply],
) -> record.Row:
    """Check one evaluation reply; a usable one is added to `good`, and either way its row is returned."""
    arm, site = request.cohort.arm, request.site
    down = size_bytes(request.content["arrays"]) if request.cohort.federated else 0
    try:
        registered = getattr(fed.members[site], phase)
        answer = arrived(message, fed.algorithm.timeout)
        reply = check_evaluate_reply(answer, fed.regions, registered, with_rows=phase == "test")
    except BadReply as error:
        found = record.row(round_, arm, site, phase, f"failed: {error}", bytes_down=down)
    else:
        good.append(reply)
        values: dict[str, Any] = {"cases": reply.cases, "loss": reply.loss, **record.dice_columns(reply.dice)}
        values |= {"seconds": round(reply.seconds, 4), "bytes_down": down, "bytes_up": 0}
        found = record.row(round_, arm, site, phase, **values)
    fed.observer.reply(arm, site, phase, found["status"] == "ok", found["seconds"] or 0.0)
    return found


def test_model(
    grid: Grid,
    fed: Federation,
    cohort: Cohort,
    arrays: ArrayRecord,
    round_: int,
    parameters: Sequence[dict[str, float]],
) -> tuple[list[record.Row], dict[str, EvaluateReply]]:
    """Evaluate one model on the test cases of every site, held-out institutions included.

    `parameters` are those of the steps of post-processing, fitted ones included.

    Returns:
        Rows of `rounds.csv` and the usable replies by site.
    """
    sites = [s for s, member in sorted(fed.members.items()) if member.test]
    facts = {"arm": cohort.arm, "round": round_, "split": "test", "steps": json.dumps(list(parameters))}
    config = ConfigRecord(facts)
    requests = [Request(cohort, s, RecordDict({"arrays": arrays, "config": config})) for s in sites]
    fed.observer.round_started(round_, len(requests))
    rows, usable = [], {}
    phase = (MessageType.EVALUATE, "test", fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        good: list[EvaluateReply] = []
        rows.append(_evaluation_row(fed, request, message, round_, "test", good))
        if good:
            usable[request.site] = good[0]
    return rows, usable


def _requests(
    fed: Federation,
    config: dict[str, Any],
    pairs: Sequence[tuple[Cohort, str]],
    by_arm: dict[str, dict[str, Any]] | None = None,
) -> list[Request]:
    """One request per pair; the sites of a cohort share one record of its model and what `by_arm` adds."""
    arrays = {cohort.arm: to_record(fed.models[cohort.arm].arrays) for cohort in fed.cohorts}
    added = by_arm or {}
    configs = {c.arm: ConfigRecord({"arm": c.arm, **config, **added.get(c.arm, {})}) for c in fed.cohorts}
    return [
        Request(c, site, RecordDict({"arrays": arrays[c.arm], "config": configs[c.arm]})) for c, site in pairs
    ]


def _keep_if_best(fed: Federation, arm: str, round_: int, score: float) -> None:
    model = fed.models[arm]
    if score > model.best_score:
        model.best_score, model.best_round = score, round_
        checkpoint.save_best(fed.folder / "checkpoints", arm, model.arrays)


def _stop_after_failures(fed: Federation, round_: int, rows: list[record.Row]) -> None:
    decisive = next((c.arm for c in fed.cohorts if c.federated), None)
    decisive = decisive or next((c.arm for c in fed.cohorts if c.arm == POOLED), None)
    if decisive is None or fed.models[decisive].failed_in_a_row < fed.algorithm.max_failed_rounds:
        return
    reasons = [
        f"{r['site']}: {r['status']}"
        for r in rows
        if r["arm"] == decisive and r["phase"] == "train" and r["status"] != "ok"
    ]
    raise FederationError(
        f"{decisive}: {fed.models[decisive].failed_in_a_row} failed rounds in a row "
        f"(strategy.max_failed_rounds), last in round {round_}. {'; '.join(reasons[:5])}"
    )

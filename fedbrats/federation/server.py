"""What the server does: ask the sites round by round, check and aggregate their replies, keep the models.

It speaks to a Flower `Grid` and knows no engine. All arms advance together: in each round every cohort's sites train,
then every cohort's model is validated, then everything is checkpointed, so one resume point serves all arms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flwr.app import ArrayRecord, Message, MessageType
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.algorithms.base import Collector, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.data.regions import REGIONS
from fedbrats.federation import checkpoint, record
from fedbrats.federation.arms import POOLED, Cohort
from fedbrats.federation.asking import FederationError, Member, Request, model_requests, replies_in_order
from fedbrats.federation.checkpoint import Model
from fedbrats.federation.exchange import (
    BadArrays,
    Signature,
    require_finite,
    signature,
    size_bytes,
)
from fedbrats.federation.replies import (
    BadReply,
    arrived,
    check_train_reply,
    stop_reason,
)
from fedbrats.federation.server_evaluation import validate

STOPPED = "stopped: "  # begins the status of a site that trains no further


class ServerPrivacy(Protocol):
    """Client-level privacy at the server (`privacy/central.py`)."""

    def begin(self, fed: Federation, round_: int) -> None:
        """Before a round: stop all sites if it would spend more than the budget."""

    def collect(self, arrays: Mapping[str, Tensor]) -> Any:
        """What collects the replies to the model `arrays`."""

    def release(self, found: Any, round_: int) -> None:
        """Account for a release, then add its noise to what was collected."""

    def write(self, fed: Federation) -> None:
        """Write `privacy.json` at the end."""


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

    algorithm: FedAvg  # of the federation
    cohorts: list[Cohort]
    models: dict[str, Model]  # by arm
    folder: Path  # run folder
    rounds: int
    observer: Observer
    regions: tuple[str, ...] = REGIONS  # that the network predicts
    trainable: frozenset[str] = frozenset()  # the arrays that are trained; others are running statistics
    evaluate_every: int = 1
    checkpoint_every: int = 1
    keep_checkpoints: int = 1
    lr_factor: Callable[[list[float]], float] = field(default=lambda losses: 1.0)  # of the validation losses
    protection: ServerPrivacy | None = None  # client-level privacy, applied to the federated arm
    losses_stay: bool = False  # patient-level privacy: the federated arm's training losses never leave a site
    validation_stays: bool = False  # and neither do its validation scores
    finished_round: int = 0
    checkpointed: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)  # sites that reached their privacy budget, and why

    def expected(self, arm: str) -> Signature:
        """The arrays that every reply in `arm` must hold."""
        return signature(self.models[arm].arrays)

    def group(self, cohort: Cohort) -> Group:
        """What the algorithm of `cohort` knows of it."""
        return Group(len(cohort.sites), self.trainable & self.models[cohort.arm].arrays.keys())

    def training(self, cohort: Cohort) -> list[str]:
        """The sites of `cohort` that still train."""
        return [site for site in cohort.sites if not (cohort.federated and site in self.stopped)]


def serve(grid: Grid, fed: Federation) -> None:
    """Train all cohorts for the remaining rounds; `fed.members` must be known.

    Raises:
        FederationError: `strategy.max_failed_rounds` rounds failed in a row in the federated arm (without one, in the
            pooled arm). The last checkpoint and all rows stay on disk.
    """
    for round_ in range(fed.finished_round + 1, fed.rounds + 1):
        if fed.protection is not None:
            fed.protection.begin(fed, round_)
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
        val_rows, dice = validate(grid, fed, round_)
        rows += val_rows
        for arm, scores in dice.items():
            summaries[arm].update(record.dice_columns(scores))
    return rows + list(summaries.values())


def _train_phase(grid: Grid, fed: Federation, round_: int) -> tuple[list[record.Row], dict[str, record.Row]]:
    requests = model_requests(
        fed.models,
        {"round": round_, "checkpointed": fed.checkpointed},
        [(c, s) for c in fed.cohorts for s in fed.training(c)],
        {c.arm: {"lr-factor": fed.lr_factor(fed.models[c.arm].val_losses)} for c in fed.cohorts},
        {c.arm: _told(fed, c) for c in fed.cohorts},
    )
    fed.observer.round_started(round_, len(requests))
    started = time.perf_counter()
    sums = {cohort.arm: _Sum(fed, cohort) for cohort in fed.cohorts}
    rows = []
    phase = (MessageType.TRAIN, str(round_), fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        rows.append(_training_row(fed, request, message, round_, sums[request.cohort.arm]))
        found = rows[-1]
        good = found["status"] == "ok" or found["status"].startswith(STOPPED)
        fed.observer.reply(request.cohort.arm, request.site, "train", good, found["seconds"] or 0.0)
    seconds = time.perf_counter() - started
    summaries = {c.arm: _aggregate(fed, c, sums[c.arm], round_) for c in fed.cohorts}
    for arm, summary in summaries.items():
        mine = [r for r in rows if r["arm"] == arm]
        summary["seconds"] = round(seconds, 4)
        summary["bytes_down"] = sum(r["bytes_down"] for r in mine)
        summary["bytes_up"] = sum(r["bytes_up"] or 0 for r in mine)
    return rows, summaries


def _told(fed: Federation, cohort: Cohort) -> dict[str, Tensor]:
    model = fed.models[cohort.arm]
    return cohort.algorithm.told(model.arrays, model.memory, fed.group(cohort))


class _Sum:
    """What the replies of one cohort add up to in one round."""

    def __init__(self, fed: Federation, cohort: Cohort) -> None:
        model, self.expected = fed.models[cohort.arm], fed.expected(cohort.arm)
        trained = fed.group(cohort).trainable if cohort.algorithm.beside else ()
        self.beside = {name: self.expected[name] for name in self.expected if name in trained}
        self.found: Collector = cohort.algorithm.collect(model.memory)
        if fed.protection is not None and cohort.federated:
            self.found = fed.protection.collect(model.arrays)
        self.asked = fed.training(cohort)
        self.losses: list[tuple[int, float]] = []  # cases and loss of those that said it
        self.cases = 0

    def add(self, reply: Reply) -> None:
        """Add one checked reply. Raises BadReply where the algorithm cannot use it."""
        try:
            self.found.add(reply)
        except ValueError as error:
            raise BadReply(str(error)) from error
        self.cases += reply.cases
        if reply.loss is not None:
            self.losses.append((reply.cases, reply.loss))

    @property
    def loss(self) -> float | str:
        """Mean training loss over the cases, "" where the losses stay at the sites."""
        cases = sum(n for n, _ in self.losses)
        return sum(n * loss for n, loss in self.losses) / cases if cases else ""


def _training_row(
    fed: Federation, request: Request, message: Message | None, round_: int, total: _Sum
) -> record.Row:
    """Check one training reply; a usable one is added to `total`, and either way its row is returned."""
    arm, site, federated = request.cohort.arm, request.site, request.cohort.federated
    records = [record for record in request.content.values() if isinstance(record, ArrayRecord)]
    down = sum(map(size_bytes, records)) if federated else 0
    try:
        answer = arrived(message, fed.algorithm.timeout)
        if federated and (reason := stop_reason(answer)):
            fed.stopped[site] = reason
            total.asked.remove(site)
            return record.row(round_, arm, site, "train", f"{STOPPED}{reason}", bytes_down=down, bytes_up=0)
        with_loss = not (federated and fed.losses_stay)
        forms = (total.expected, fed.members[site].train)
        reply = check_train_reply(answer, *forms, with_loss=with_loss, beside=total.beside)
        total.add(Reply(site, reply.arrays, reply.cases, reply.steps, reply.loss, reply.beside))
    except BadReply as error:
        return record.row(round_, arm, site, "train", f"failed: {error}", bytes_down=down)
    values: dict[str, Any] = {"cases": reply.cases, "loss": "" if reply.loss is None else reply.loss}
    values["seconds"] = round(reply.seconds, 4)
    return record.row(
        round_, arm, site, "train", **values, bytes_down=down, bytes_up=reply.bytes_up if federated else 0
    )


def _aggregate(fed: Federation, cohort: Cohort, total: _Sum, round_: int) -> record.Row:
    """Make the cohort's next model of its replies, or keep the old one when there are too few."""
    model, asked = fed.models[cohort.arm], len(total.asked)
    if not asked:
        status = f"{STOPPED}every site has reached its privacy budget; the model stays"
        return record.row(round_, cohort.arm, record.SERVER, "round", status)
    needed = cohort.algorithm.needed(asked)
    problem = ""
    if total.found.replies < needed:
        problem = (
            f"{total.found.replies} of {asked} replies usable, quorum needs {needed}; the old model stays"
        )
    else:
        if fed.protection is not None and cohort.federated:
            fed.protection.release(total.found, round_)
        arrays, memory = cohort.algorithm.step(model.arrays, total.found, model.memory, fed.group(cohort))
        try:
            _require_finite(arrays, memory)
        except BadArrays as error:  # finite replies whose sum is beyond float32
            problem = f"what the replies became, {error}; the old model stays"
    if problem:
        model.failed_in_a_row += 1
        return record.row(round_, cohort.arm, record.SERVER, "round", f"failed: {problem}")
    model.arrays, model.memory = arrays, memory
    model.failed_in_a_row = 0
    values: dict[str, Any] = {"cases": total.cases, "loss": total.loss}
    return record.row(round_, cohort.arm, record.SERVER, "round", **values)


def _require_finite(arrays: Mapping[str, Tensor], memory: Memory) -> None:
    for found in (arrays, memory.arrays):
        require_finite({name: array.numpy() for name, array in found.items()})


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

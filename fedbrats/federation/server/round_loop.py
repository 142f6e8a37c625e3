"""What the server does: ask the sites round by round, check and aggregate their replies, keep the models.

It speaks to a Flower `Grid` and knows no engine. All arms advance together: in each round every cohort's sites train,
then every cohort's model is validated, then everything is checkpointed, so one resume point serves all arms. With
`runtime.one_exchange` the validation travels with the training of the next round and changes nothing but that. With
`train.stop_patience` an arm whose validation loss no longer falls is not asked again; when none is left, the run goes
on to its tests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.arrays import like
from fedbrats.config.schema import POOLED
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Answer, Question, Request, ask, model_requests
from fedbrats.federation.server.collecting import Collected
from fedbrats.federation.server.evaluation import validate, validation_beside
from fedbrats.federation.server.replies import EvaluateReply, Stopped, TrainReply
from fedbrats.federation.server.secure import SecureRound
from fedbrats.federation.server.state import Federation, FederationError
from fedbrats.federation.wire import NUMBER
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import save_checkpoint
from fedbrats.scenario.clock import HOUR
from fedbrats.scenario.participation import Asked

log = logging.getLogger(__name__)


def serve(grid: Grid, fed: Federation) -> None:
    """Train all cohorts for the remaining rounds; `fed.members` must be known.

    Raises:
        FederationError: `strategy.max_failed_rounds` rounds failed in a row in the federated arm (without one, in the
            pooled arm). The last checkpoint and all rows stay on disk.
    """
    left: Trained | None = None  # a round whose model is validated together with the training of the next
    for round_ in range(fed.finished_round + 1, fed.rounds + 1):
        active = fed.active()
        if not active:
            break
        if fed.protection is not None and any(cohort.federated for cohort in active):
            fed.protection.begin(fed, round_)
        trained = _train_phase(grid, fed, round_, left)
        left = trained if _validated_later(fed, round_) else None
        if left is None:
            _close(grid, fed, trained)


def run_round(grid: Grid, fed: Federation, round_: int) -> list[rounds.Row]:
    """Train and, where it is due, validate every cohort once; rows of `rounds.csv`."""
    return _validated(grid, fed, _train_phase(grid, fed, round_))


@dataclass
class Trained:
    """A round whose new models are there: rows of its replies, by arm the row of what they became.

    told: validations of these models that came with the training of the next round (`runtime.one_exchange`).
    """

    round: int
    rows: list[rounds.Row]
    summaries: dict[str, rounds.Row]
    told: dict[tuple[str, str], Answer[EvaluateReply]] = field(default_factory=dict)


def _is_validated(fed: Federation, round_: int) -> bool:
    return round_ % fed.evaluate_every == 0 or round_ == fed.rounds


def _validated_later(fed: Federation, round_: int) -> bool:
    """Whether the models of `round_` are validated with the training of the next one, which then must come."""
    again = round_ < fed.rounds and not _failed_too_often(fed) and bool(fed.active())
    return fed.one_exchange and again and _is_validated(fed, round_)


def _validated(grid: Grid, fed: Federation, trained: Trained) -> list[rounds.Row]:
    """Validate where it is due; all rows of the round."""
    rows = trained.rows
    if _is_validated(fed, trained.round):
        val_rows, scores = validate(grid, fed, trained.round, trained.told)
        rows = rows + val_rows
        for arm, by_region in scores.items():
            trained.summaries[arm].update(fed.task.round_columns(by_region))
    return rows + list(trained.summaries.values())


def _close(grid: Grid, fed: Federation, trained: Trained) -> None:
    """Validate, write down and checkpoint a round; `fed` holds the models that it made."""
    round_ = trained.round
    active = [cohort for cohort in fed.cohorts if cohort.arm in trained.summaries]
    rows = _validated(grid, fed, trained)
    rounds.append(fed.folder, rows)
    fed.finished_round = round_
    still = fed.active()
    for cohort in (c for c in active if c not in still):
        why = "no lower validation loss (train.stop_patience)"
        if cohort.federated and fed.over:
            why = "the simulated clock has run out (scenario.clock.horizon)"
        log.warning("%s stops after round %d: %s", cohort.arm, round_, why)
    if round_ % fed.checkpoint_every == 0 or round_ == fed.rounds or not still:
        save_checkpoint(fed.folder / "checkpoints", round_, fed.models, keep=fed.keep_checkpoints)
        fed.checkpointed = round_
    fed.observer.round_finished(round_, rows)
    _stop_after_failures(fed, round_, rows)


def _train_phase(grid: Grid, fed: Federation, round_: int, left: Trained | None = None) -> Trained:
    """Train every cohort once. `left`: the round before, which is validated on the way and closed."""
    cohorts, started = fed.active(), time.perf_counter()
    asked = {c.arm: fed.asked(c, round_) for c in cohorts}
    secure, missing = _begin_secure(grid, fed, cohorts, round_)
    requests = _train_requests(fed, cohorts, asked, round_, secure, left)
    collected = {c.arm: Collected(fed, c, asked[c.arm], secure.get(c.arm)) for c in cohorts}

    def check(message: Message, request: Request) -> TrainReply | Stopped:
        if left and (told := validation_beside(fed, left.round, message, request)):
            left.told[request.cohort.arm, request.site] = told
        return collected[request.cohort.arm].check(message, request.site)

    question = Question(questions.TRAIN, "train", check)
    rows = missing + _unreachable(asked, round_)
    rows += [answer.row for answer in ask(grid, fed, question, requests, round_)]
    rows += [row for found in collected.values() for row in found.end_secure(grid)]
    seconds = time.perf_counter() - started
    if left:
        _close(grid, fed, left)  # before the models of this round take the place of those that were validated
    hours = _clock(fed, asked, round_, rows)
    summaries = {arm: found.finish(round_) for arm, found in collected.items()}
    for arm, summary in summaries.items():
        mine = [r for r in rows if r["arm"] == arm]
        summary["seconds"] = round(seconds, 4)
        summary["bytes_down"] = sum(r["bytes_down"] or 0 for r in mine)
        summary["bytes_up"] = sum(r["bytes_up"] or 0 for r in mine)
        summary["hours"] = hours.get(arm, "")
    return Trained(round_, rows, summaries)


def _unreachable(asked: Mapping[str, Asked], round_: int) -> list[rounds.Row]:
    """Rows of the sites that a scenario lets nobody reach."""
    return [
        rounds.row(round_, arm, site, "train", status)
        for arm, who in asked.items()
        for site, status in who.unreachable.items()
    ]


def _clock(
    fed: Federation, asked: Mapping[str, Asked], round_: int, rows: list[rounds.Row]
) -> dict[str, float]:
    """Let the simulated clock run on by the round of the federated arm; the hours by arm, none without a clock."""
    rule = fed.participation
    arm = next((c.arm for c in fed.cohorts if c.federated and c.arm in asked), None)
    if rule is None or rule.clock is None or arm is None:
        return {}
    fed.hours += (rule.length(asked[arm], round_) or 0.0) / HOUR
    for row in rows:
        if row["arm"] == arm and row["site"] in asked[arm].reachable:
            row["hours"] = round(rule.clock.seconds(row["site"], round_) / HOUR, 6)
    return {arm: round(fed.hours, 6)}


def _begin_secure(
    grid: Grid, fed: Federation, cohorts: Sequence[Cohort], round_: int
) -> tuple[dict[str, SecureRound], list[rounds.Row]]:
    """With secure aggregation: keys and shares of the federated arm, and the rows of those who gave none."""
    if fed.secure is None:
        return {}, []
    begun = {c.arm: SecureRound(fed, c, round_) for c in cohorts if c.federated}
    return begun, [row for found in begun.values() for row in found.begin(grid)]


def _train_requests(
    fed: Federation,
    cohorts: Sequence[Cohort],
    asked: Mapping[str, Asked],
    round_: int,
    secure: Mapping[str, SecureRound],
    left: Trained | None,
) -> list[Request]:
    by_arm: dict[str, dict[str, Any]] = {
        c.arm: {"lr-factor": fed.lr_factor(fed.models[c.arm].val_losses)} for c in cohorts
    }
    for c in cohorts:
        told = c.algorithm.said(fed.models[c.arm].memory)
        by_arm[c.arm] |= {f"{NUMBER}{name}": float(value) for name, value in told.items()}
    for arm, found in secure.items():
        by_arm[arm]["session"] = found.session
    sites = {c.arm: secure[c.arm].dealt if c.arm in secure else asked[c.arm].reachable for c in cohorts}
    requests = model_requests(
        fed.models,
        {"round": round_, "checkpointed": fed.checkpointed, "validate": left.round if left else 0},
        [(c, site) for c in cohorts for site in sites[c.arm]],
        by_arm,
        {c.arm: _told(fed, c) for c in cohorts},
    )
    for request in requests:
        if request.cohort.arm in secure:
            request.content.update(secure[request.cohort.arm].train_content(request.site))
    return requests


def _told(fed: Federation, cohort: Cohort) -> dict[str, Tensor]:
    model = fed.models[cohort.arm]
    told = cohort.algorithm.told(model.arrays, model.memory, fed.group(cohort))
    return like(told, fed.expected(cohort.arm))


def _stop_after_failures(fed: Federation, round_: int, rows: list[rounds.Row]) -> None:
    decisive = _decisive(fed)
    if decisive is None or not _failed_too_often(fed):
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


def _decisive(fed: Federation) -> str | None:
    """The arm whose failed rounds end the run."""
    federated = next((c.arm for c in fed.cohorts if c.federated), None)
    return federated or next((c.arm for c in fed.cohorts if c.arm == POOLED), None)


def _failed_too_often(fed: Federation) -> bool:
    decisive = _decisive(fed)
    return decisive is not None and (fed.models[decisive].failed_in_a_row >= fed.algorithm.max_failed_rounds)

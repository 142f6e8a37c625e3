"""What the server does: ask the sites round by round, check and aggregate their replies, keep the models.

It speaks to a Flower `Grid` and knows no engine. All arms advance together: in each round every cohort's sites train,
then every cohort's model is validated, then everything is checkpointed, so one resume point serves all arms. With
`train.stop_patience` an arm whose validation loss no longer falls is not asked again; when none is left, the run goes
on to its tests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.arrays import like
from fedbrats.config.schema import POOLED
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Question, Request, ask, model_requests
from fedbrats.federation.server.collecting import Collected
from fedbrats.federation.server.evaluation import validate
from fedbrats.federation.server.secure import SecureRound
from fedbrats.federation.server.state import Federation, FederationError
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import save_checkpoint
from fedbrats.tasks import segmentation as task

log = logging.getLogger(__name__)


def serve(grid: Grid, fed: Federation) -> None:
    """Train all cohorts for the remaining rounds; `fed.members` must be known.

    Raises:
        FederationError: `strategy.max_failed_rounds` rounds failed in a row in the federated arm (without one, in the
            pooled arm). The last checkpoint and all rows stay on disk.
    """
    for round_ in range(fed.finished_round + 1, fed.rounds + 1):
        active = fed.active()
        if not active:
            break
        if fed.protection is not None and any(cohort.federated for cohort in active):
            fed.protection.begin(fed, round_)
        rows = run_round(grid, fed, round_)
        rounds.append(fed.folder, rows)
        fed.finished_round = round_
        still = fed.active()
        for cohort in (c for c in active if c not in still):
            log.warning(
                "%s stops after round %d: no lower validation loss (train.stop_patience)", cohort.arm, round_
            )
        if round_ % fed.checkpoint_every == 0 or round_ == fed.rounds or not still:
            save_checkpoint(fed.folder / "checkpoints", round_, fed.models, keep=fed.keep_checkpoints)
            fed.checkpointed = round_
        fed.observer.round_finished(round_, rows)
        _stop_after_failures(fed, round_, rows)


def run_round(grid: Grid, fed: Federation, round_: int) -> list[rounds.Row]:
    """Train and, where it is due, validate every cohort once; rows of `rounds.csv`."""
    rows, summaries = _train_phase(grid, fed, round_)
    if round_ % fed.evaluate_every == 0 or round_ == fed.rounds:
        val_rows, scores = validate(grid, fed, round_)
        rows += val_rows
        for arm, by_region in scores.items():
            summaries[arm].update(task.round_columns(by_region))
    return rows + list(summaries.values())


def _train_phase(grid: Grid, fed: Federation, round_: int) -> tuple[list[rounds.Row], dict[str, rounds.Row]]:
    """Rows of the replies, and by arm the row of what they became."""
    cohorts, started = fed.active(), time.perf_counter()
    secure, missing = _begin_secure(grid, fed, cohorts, round_)
    requests = _train_requests(fed, cohorts, round_, secure)
    collected = {c.arm: Collected(fed, c, secure.get(c.arm)) for c in cohorts}
    question = Question(
        questions.TRAIN,
        "train",
        lambda message, request: collected[request.cohort.arm].check(message, request.site),
    )
    rows = missing + [answer.row for answer in ask(grid, fed, question, requests, round_)]
    rows += [row for found in collected.values() for row in found.end_secure(grid)]
    seconds = time.perf_counter() - started
    summaries = {arm: found.finish(round_) for arm, found in collected.items()}
    for arm, summary in summaries.items():
        mine = [r for r in rows if r["arm"] == arm]
        summary["seconds"] = round(seconds, 4)
        summary["bytes_down"] = sum(r["bytes_down"] or 0 for r in mine)
        summary["bytes_up"] = sum(r["bytes_up"] or 0 for r in mine)
    return rows, summaries


def _begin_secure(
    grid: Grid, fed: Federation, cohorts: Sequence[Cohort], round_: int
) -> tuple[dict[str, SecureRound], list[rounds.Row]]:
    """With secure aggregation: keys and shares of the federated arm, and the rows of those who gave none."""
    if fed.secure is None:
        return {}, []
    begun = {c.arm: SecureRound(fed, c, round_) for c in cohorts if c.federated}
    return begun, [row for found in begun.values() for row in found.begin(grid)]


def _train_requests(
    fed: Federation, cohorts: Sequence[Cohort], round_: int, secure: Mapping[str, SecureRound]
) -> list[Request]:
    by_arm: dict[str, dict[str, Any]] = {
        c.arm: {"lr-factor": fed.lr_factor(fed.models[c.arm].val_losses)} for c in cohorts
    }
    for arm, found in secure.items():
        by_arm[arm]["session"] = found.session
    asked = {c.arm: secure[c.arm].dealt if c.arm in secure else fed.training(c) for c in cohorts}
    requests = model_requests(
        fed.models,
        {"round": round_, "checkpointed": fed.checkpointed},
        [(c, site) for c in cohorts for site in asked[c.arm]],
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

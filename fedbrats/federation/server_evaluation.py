"""The server's half of evaluation: validation of every cohort in a round, the test of one model at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedbrats.federation import checkpoint, record
from fedbrats.federation.arms import PERSONAL, Cohort
from fedbrats.federation.asking import Request, model_requests, replies_in_order
from fedbrats.federation.exchange import size_bytes
from fedbrats.federation.replies import BadReply, EvaluateReply, arrived, check_evaluate_reply

if TYPE_CHECKING:
    from fedbrats.federation.server import Federation


def validate(
    grid: Grid, fed: Federation, round_: int
) -> tuple[list[record.Row], dict[str, dict[str, float]]]:
    """Validate every cohort's model on its sites' validation cases and keep the best ones.

    Returns:
        Rows of `rounds.csv`, and the mean Dice by arm and region.
    """
    told = [c for c in fed.cohorts if not (c.federated and fed.validation_stays)]
    pairs = [(c, s) for c in told for s in c.sites if fed.members[s].val]
    requests = model_requests(fed.models, {"round": round_, "split": "val"}, pairs)
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


def score_model(
    grid: Grid,
    fed: Federation,
    cohort: Cohort,
    arrays: ArrayRecord,
    round_: int,
    parameters: Sequence[dict[str, float]],
    *,
    whole: bool = False,
) -> tuple[list[record.Row], dict[str, EvaluateReply]]:
    """Evaluate one model on the test cases of every site, held-out institutions included.

    Personal models are tested where they were trained only. `parameters` are those of the steps of post-processing,
    fitted ones included; `whole`: `arrays` hold the mean of those that stay at the sites, too.

    Returns:
        Rows of `rounds.csv` and the usable replies by site.
    """
    own = cohort.sites if cohort.arm == PERSONAL else fed.members
    sites = [s for s, member in sorted(fed.members.items()) if member.test and s in own]
    facts: dict[str, Any] = {"arm": cohort.arm, "round": round_, "split": "test", "whole": whole}
    config = ConfigRecord({**facts, "steps": json.dumps(list(parameters))})
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


def _keep_if_best(fed: Federation, arm: str, round_: int, score: float) -> None:
    model = fed.models[arm]
    if score > model.best_score:
        model.best_score, model.best_round = score, round_
        checkpoint.save_best(fed.folder / "checkpoints", arm, model.arrays)

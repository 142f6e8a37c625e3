"""The server's half of evaluation: validation of every cohort in a round, the test of one model at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedbrats.config.schema import FLOOR
from fedbrats.federation import questions
from fedbrats.federation.arms import PERSONAL, Cohort
from fedbrats.federation.server.asking import Answer, Question, Request, ask, model_requests
from fedbrats.federation.server.replies import BadReply, EvaluateReply, check_evaluate_reply
from fedbrats.federation.server.state import Federation
from fedbrats.federation.wire import VALIDATION
from fedbrats.inference.flair_threshold import REGIONS
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import save_best


def _question(fed: Federation, kind: str, split: str) -> Question[EvaluateReply]:
    return Question(
        kind,
        split,
        lambda message, request: check_evaluate_reply(
            message,
            fed.regions,
            getattr(fed.members[request.site], split),
            fed.metrics if split == "test" else None,
            fed.task,
        ),
    )


def validation_beside(
    fed: Federation, round_: int, message: Message, request: Request
) -> Answer[EvaluateReply] | None:
    """The validation of the models of `round_` that came beside a reply to train, taken out of it; None if none did."""
    if message.has_error() or VALIDATION not in message.content:
        return None
    record = message.content.pop(VALIDATION)
    told = Message(RecordDict({"metrics": record}), metadata=message.metadata)
    values: dict[str, Any] = {"status": "ok", "bytes_down": 0}
    reply: EvaluateReply | None = None
    try:
        reply = _question(fed, questions.VALIDATE, "val").check(told, request)
        values |= reply.columns()
    except BadReply as error:
        values["status"] = f"failed: {error}"
    row = rounds.row(round_, request.cohort.arm, request.site, "val", **values)
    return Answer(request, reply, row)


def validate(
    grid: Grid,
    fed: Federation,
    round_: int,
    told: Mapping[tuple[str, str], Answer[EvaluateReply]] | None = None,
) -> tuple[list[rounds.Row], dict[str, dict[str, float]]]:
    """Validate every cohort's model on its sites' validation cases and keep the best ones.

    Args:
        grid: to ask.
        fed: with the models.
        round_: that made them.
        told: what sites have said of it before, by arm and site; only the others are asked.

    Returns:
        Rows of `rounds.csv`, and the mean of the main score by arm and region.
    """
    telling = [c for c in fed.active() if not (c.federated and fed.validation_stays)]
    pairs = [(c, s) for c in telling for s in c.sites if fed.members[s].val]
    answers = dict(told or {})
    left = [(c, s) for c, s in pairs if (c.arm, s) not in answers]
    if left or not answers:
        requests = model_requests(fed.models, {"round": round_}, left)
        asked_now = ask(grid, fed, _question(fed, questions.VALIDATE, "val"), requests, round_)
        answers |= {(answer.request.cohort.arm, answer.request.site): answer for answer in asked_now}
    good: dict[str, list[EvaluateReply]] = {c.arm: [] for c in fed.cohorts}
    rows = []
    for answer in (answers[c.arm, s] for c, s in pairs):
        rows.append(answer.row)
        good[answer.request.cohort.arm] += [answer.reply] if answer.reply else []
    asked = {c.arm: sum(1 for pair in pairs if pair[0] is c) for c in fed.cohorts}
    scores = {}
    for arm, replies in good.items():
        if not replies:
            continue
        cases = sum(r.cases for r in replies)
        scores[arm] = {r: sum(x.cases * x.scores[r] for x in replies) / cases for r in fed.regions}
        if len(replies) == asked[arm]:  # a mean over fewer sites would not be comparable between rounds
            fed.models[arm].val_losses.append(sum(x.cases * x.loss for x in replies) / cases)
            _keep_if_best(fed, arm, round_, fed.task.worth(scores[arm]))
    return rows, scores


def score_model(
    grid: Grid,
    fed: Federation,
    cohort: Cohort,
    arrays: Mapping[str, ArrayRecord],
    round_: int,
    parameters: Sequence[dict[str, float]],
    *,
    whole: bool = False,
) -> tuple[list[rounds.Row], dict[str, EvaluateReply]]:
    """Evaluate one model, as each site gets it, on the test cases of every site, held-out institutions included.

    Personal models are tested where they were trained only. `parameters` are those of the steps of post-processing,
    fitted ones included; `whole`: `arrays` hold the mean of those that stay at the sites, too.

    Returns:
        Rows of `rounds.csv` and the usable replies by site.
    """
    own = cohort.sites if cohort.arm == PERSONAL else fed.members
    sites = [s for s, member in sorted(fed.members.items()) if member.test and s in own]
    facts: dict[str, Any] = {"arm": cohort.arm, "round": round_, "whole": whole}
    config = ConfigRecord({**facts, "steps": json.dumps(list(parameters))})
    requests = [Request(cohort, s, RecordDict({"arrays": arrays[s], "config": config})) for s in sites]
    answers = list(ask(grid, fed, _question(fed, questions.TEST, "test"), requests, round_))
    usable = {answer.request.site: answer.reply for answer in answers if answer.reply}
    return [answer.row for answer in answers], usable


def score_floor(
    grid: Grid, fed: Federation, round_: int
) -> tuple[list[rounds.Row], dict[str, EvaluateReply]]:
    """Have every site score its threshold on FLAIR on its test cases; nothing travels to it but the question.

    Returns:
        As `score_model`.
    """
    sites = tuple(site for site, member in sorted(fed.members.items()) if member.test)
    config = ConfigRecord({"arm": FLOOR, "round": round_})
    requests = [Request(Cohort(FLOOR, sites), site, RecordDict({"config": config})) for site in sites]

    def check(message: Message, request: Request) -> EvaluateReply:
        cases = fed.members[request.site].test
        return check_evaluate_reply(message, REGIONS, cases, fed.metrics, floor=True)

    answers = list(ask(grid, fed, Question(questions.FLOOR, "test", check), requests, round_))
    usable = {answer.request.site: answer.reply for answer in answers if answer.reply}
    return [answer.row for answer in answers], usable


def _keep_if_best(fed: Federation, arm: str, round_: int, score: float) -> None:
    model = fed.models[arm]
    if score > model.best_score:
        model.best_score, model.best_round = score, round_
        versions = any(c.arm == arm and c.algorithm.versions for c in fed.cohorts)
        save_best(fed.folder / "checkpoints", arm, model.arrays, model.memory if versions else None)

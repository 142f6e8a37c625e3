"""One round of local training, as a site answers it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedbrats.algorithms.base import Beside
from fedbrats.arrays import all_read_only, like, stored, trainable, travelling
from fedbrats.config.schema import FEDERATED
from fedbrats.federation import arms
from fedbrats.federation.site.budget import BudgetReached
from fedbrats.federation.site.evaluation import validation_scores
from fedbrats.federation.site.personal import personal_state, work_of
from fedbrats.federation.site.secure import masked, open_shares
from fedbrats.federation.site.site import ALGORITHM, TRANSFER, Site
from fedbrats.federation.site.work import SiteWork
from fedbrats.federation.transfer import sent_changes
from fedbrats.federation.wire import NUMBER, PROGRESS, from_record, to_record
from fedbrats.scenario.poison import poisoned
from fedbrats.seeding import generator


def train(site: Site, content: RecordDict) -> dict[str, Any]:
    """Train the received model and reply with it, or say why the site trains no further.

    Under differential privacy the loss stays at the site, and epsilon so far is told in its place.
    """
    config, started = content["config"], time.perf_counter()
    arm, round_, keep_from = config["arm"], config["round"], config["checkpointed"]
    if site.masks(arm):
        open_shares(site, content)
    site.load(content, arm, round_, change=True)
    personal = site.parts.personalization if arm == FEDERATED else None
    work = SiteWork(
        site,
        arm,
        round_,
        work_of(site.state_before(round_)) if personal else {},
        config["lr-factor"],
        replace(_beside(site, arm, round_, content.get("beside")), numbers=_numbers(config)),
    )
    telling = work.algorithm.needs_progress and bool(site.cases.val)
    losses = [_validation_loss(site, arm, round_)] if telling else []
    try:
        if personal:
            loss = personal.round(work)
        else:
            loss = work.fit("train", work.network, work.penalty(work.network))
    except BudgetReached as error:
        return {"stopped": ConfigRecord({"reason": str(error)})}
    losses += [_validation_loss(site, arm, round_)] if telling else []
    left = work.left()
    work.keep(keep_from)
    if personal and personal.keeps_state:
        site.remember(arms.PERSONAL, round_, personal_state(site, work), keep_from)
    if work.algorithm.keeps_state:
        site.remember(ALGORITHM, round_, left.kept, keep_from)
    sent = _sent(site, work, content)
    metrics: dict[str, Any] = {"num-examples": len(site.cases.train), "steps": work.steps}
    metrics |= {"loss": loss} if work.epsilon is None else {"epsilon": work.epsilon}
    beside = to_record(like(left.sent, site.parts.signature))
    records: dict[str, Any] = {"arrays": to_record(sent), **({"beside": beside} if left.sent else {})}
    if telling:
        told = {"num-examples": len(site.cases.val), "loss-before": losses[0], "loss-after": losses[1]}
        records[PROGRESS] = MetricRecord(told)
    metrics["seconds"] = time.perf_counter() - started
    return {**records, "metrics": MetricRecord(metrics)}


def _validation_loss(site: Site, arm: str, round_: int) -> float:
    """Of the network as it is, over the validation cases."""
    return validation_scores(site, arm, round_)["loss"]


def _sent(site: Site, work: SiteWork, content: RecordDict) -> dict[str, Tensor]:
    """What leaves of the trained network: without the arrays that stay, as a scenario, the way and masks have it."""
    arm, round_, stays = work.arm, work.round, site.stays_in(work.arm)
    sent = {name: tensor for name, tensor in travelling(work.network).items() if name not in stays}
    if arm == FEDERATED and (kind := site.config.scenario.poisoned.get(site.name)):
        sent = _poisoned(site, kind, content["arrays"], sent, round_)
    way = site.parts.algorithm.way
    if arm == FEDERATED and way.changes:
        forms = {name: site.parts.signature[name] for name in sent}
        received = from_record(content["arrays"], forms)
        before = site.residual_before(round_) if way.keeps else {}
        sent, residual = sent_changes(way, sent, received, before, site.parts.trainable)
        if way.keeps:
            site.remember(TRANSFER, round_, residual, content["config"]["checkpointed"])
    return masked(site, content["config"], sent) if site.masks(arm) else sent


def _poisoned(
    site: Site, kind: str, record: ArrayRecord, sent: dict[str, Tensor], round_: int
) -> dict[str, Tensor]:
    """What a site that lies, as a scenario has it, sends in the place of what it has trained."""
    received = from_record(record, {name: site.parts.signature[name] for name in sent})
    rng = generator(site.config.seed, "poison", site.name, round_)
    strength = site.config.scenario.poison_strength
    return poisoned(kind, strength, sent, received, site.parts.trainable, rng)


def _numbers(config: ConfigRecord) -> dict[str, float]:
    """What the algorithm at the server says with the model, as `permits` lets it through."""
    return {
        str(key).removeprefix(NUMBER): float(v) for key, v in config.items() if str(key).startswith(NUMBER)
    }


def _beside(site: Site, arm: str, round_: int, record: ArrayRecord | None) -> Beside:
    """What the algorithm of `arm` has when the round begins; the network holds what was received."""
    algorithm, stays = arms.algorithm_of(arm, site.parts.algorithm), site.stays_in(arm)
    if not (algorithm.beside or algorithm.keeps_state):
        return Beside()
    trained = {n: p for n, p in trainable(site.warm.network).items() if n not in stays}
    forms = {name: site.parts.signature[name] for name in trained}
    received = from_record(record, forms) if algorithm.beside and record is not None else {}
    return Beside(
        start={name: stored(parameter) for name, parameter in trained.items()},
        received=all_read_only(received),
        kept=site.kept_before(round_),
    )

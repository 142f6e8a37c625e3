"""One round of local training, as a site answers it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedbrats.algorithms.base import Beside
from fedbrats.algorithms.fedavg import FP16
from fedbrats.arrays import like, stored, trainable, travelling
from fedbrats.config.schema import FEDERATED
from fedbrats.federation import arms
from fedbrats.federation.site.budget import BudgetReached
from fedbrats.federation.site.secure import masked, open_shares
from fedbrats.federation.site.site import ALGORITHM, STAYS, TRANSFER, WORK, Site
from fedbrats.federation.site.work import SiteWork
from fedbrats.federation.transfer import halved
from fedbrats.federation.wire import NUMBER, from_record, to_record
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
        _work_of(site.state_before(round_)) if personal else {},
        config["lr-factor"],
        replace(_beside(site, arm, round_, content.get("beside")), numbers=_numbers(config)),
    )
    try:
        if personal:
            loss = personal.round(work)
        else:
            loss = work.fit("train", work.network, work.penalty(work.network))
    except BudgetReached as error:
        return {"stopped": ConfigRecord({"reason": str(error)})}
    left = work.left()
    work.save_optimizers(keep_from)
    if personal and personal.keeps_state:
        site.remember(arms.PERSONAL, round_, _personal_state(site, work), keep_from)
    if work.algorithm.keeps_state:
        site.remember(ALGORITHM, round_, left.kept, keep_from)
    stays = site.stays_in(arm)
    sent = {name: tensor for name, tensor in travelling(work.network).items() if name not in stays}
    if arm == FEDERATED and (kind := site.config.scenario.poisoned.get(site.name)):
        sent = _poisoned(site, kind, content["arrays"], sent, round_)
    if arm == FEDERATED and site.parts.algorithm.transfer == FP16:
        forms = {name: site.parts.signature[name] for name in sent}
        received = from_record(content["arrays"], forms)
        sent, residual = halved(sent, received, site.residual_before(round_))
        site.remember(TRANSFER, round_, residual, keep_from)
    if site.masks(arm):
        sent = masked(site, config, sent)
    metrics: dict[str, Any] = {"num-examples": len(site.cases.train), "steps": work.steps}
    metrics |= {"loss": loss} if work.epsilon is None else {"epsilon": work.epsilon}
    beside = to_record(like(left.sent, site.parts.signature))
    records = {"arrays": to_record(sent), **({"beside": beside} if left.sent else {})}
    metrics["seconds"] = time.perf_counter() - started
    return {**records, "metrics": MetricRecord(metrics)}


def _poisoned(
    site: Site, kind: str, record: ArrayRecord, sent: dict[str, Tensor], round_: int
) -> dict[str, Tensor]:
    """What a site that lies, as a scenario has it, sends in the place of what it has trained."""
    received = from_record(record, {name: site.parts.signature[name] for name in sent})
    rng = generator(site.config.seed, "poison", site.name, round_)
    strength = site.config.scenario.poison_strength
    return poisoned(kind, strength, sent, received, site.parts.trainable, rng)


def make_personal(site: Site, arm: str, round_: int) -> None:
    """Turn the loaded model into the site's own, after the last training in `round_`."""
    assert site.parts.personalization is not None
    remembered = _work_of(site.state_before(round_ + 1))
    site.parts.personalization.personal(SiteWork(site, arm, round_, remembered))


def _work_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a personal state what the method remembers."""
    return {n.removeprefix(WORK): tensor for n, tensor in state.items() if n.startswith(WORK)}


def _personal_state(site: Site, work: SiteWork) -> dict[str, Tensor]:
    """What the round leaves at the site: its own arrays and what the method remembers."""
    tensors = travelling(work.network)
    kept = {STAYS + name: stored(tensors[name]) for name in site.parts.stays}
    return kept | {WORK + name: stored(tensor) for name, tensor in work.state.items()}


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
        received={name: torch.from_numpy(array) for name, array in received.items()},
        kept=site.kept_before(round_),
    )

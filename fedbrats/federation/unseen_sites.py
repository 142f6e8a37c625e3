"""How the global model of a personalised federation serves an institution without arrays of its own.

It is tested at every institution under the arm `federated`. Either the arrays that stay are left as they were at the
start, with statistics from the institution's unlabelled scans or from each scan by itself, or every site agrees to send
its own once, after the last round, and their mean serves (`personalization.unseen=average`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.federation import exchange, record
from fedbrats.federation.arms import FEDERATED, Cohort
from fedbrats.federation.asking import FederationError, Request, replies_in_order
from fedbrats.federation.exchange import BadArrays, Signature
from fedbrats.federation.replies import BadReply, arrived, content_of, number_of
from fedbrats.federation.site_state import STAYS
from fedbrats.personalization.unseen import average, instance_statistics, recalibrate
from fedbrats.seeding import generator
from fedbrats.training import batches

if TYPE_CHECKING:
    from fedbrats.federation.server import Federation
    from fedbrats.federation.site_runtime import SiteRuntime

AVERAGE, RECALIBRATE, INSTANCE = "average", "recalibrate", "instance"
CALIBRATION_BATCHES = 16  # of `train.batch` patches, drawn without a look at the labels


@contextlib.contextmanager
def served_as_unseen(runtime: SiteRuntime, site: str) -> Iterator[None]:
    """The network, loaded with the global model, as an institution without a training of its own would use it."""
    assert runtime.personalization is not None
    network, rule = runtime.network, runtime.personalization.unseen
    tensors = exchange.travelling(network)
    with torch.no_grad():
        for name in runtime.stays:
            tensors[name].copy_(runtime.initial[name])
    runtime.changed()
    if rule == RECALIBRATE:
        recalibrate(network, _unlabelled(runtime, site))
    with instance_statistics(network) if rule == INSTANCE else contextlib.nullcontext():
        yield


def _unlabelled(runtime: SiteRuntime, site: str) -> Iterator[Tensor]:
    """Patches from anywhere in the scans of `site`, its training scans where it has some."""
    config, cases = runtime.config, runtime.cases(site)
    blind = replace(config.train, tumour_share=0.0, augment="none")
    drawn = batches(
        cases.train or cases.val or cases.test,
        generator(config.seed, "unseen", site),
        blind,
        runtime.rules,
        CALIBRATION_BATCHES,
        runtime.device,
        runtime.normalise(site),
    )
    return (images for images, _ in drawn)


def stays_of_site(runtime: SiteRuntime, site: str, round_: int) -> dict[str, Any]:
    """The site's half of `average`: the records of the reply, its own arrays after `round_`.

    Raises:
        PermissionError: the site's own configuration does not let them leave.
    """
    if runtime.personalization is None or runtime.personalization.unseen != AVERAGE:
        raise PermissionError("these arrays stay here: personalization.unseen is not average")
    started, _ = time.perf_counter(), runtime.network
    state = runtime.state_before(site, round_ + 1)
    own = {name: state.get(STAYS + name, runtime.initial[name]) for name in runtime.stays}
    facts = {"num-examples": len(runtime.cases(site).train), "seconds": time.perf_counter() - started}
    return {"arrays": exchange.to_record(own), "metrics": MetricRecord(facts)}


def mean_of_stays(
    grid: Grid, fed: Federation, cohort: Cohort, round_: int, expected: Signature
) -> tuple[list[record.Row], dict[str, Tensor]]:
    """The server's half of `average`: ask the sites of `cohort` and take the plain mean of what is `expected`.

    Returns:
        Rows of `rounds.csv` (phase "stays") and the mean arrays.

    Raises:
        FederationError: no site answered usably.
    """
    config = ConfigRecord({"arm": FEDERATED, "round": round_, "split": "stays"})
    requests = [Request(cohort, site, RecordDict({"config": config})) for site in cohort.sites]
    fed.observer.round_started(round_, len(requests))
    rows, found = [], []
    phase = (MessageType.EVALUATE, "stays", fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        status, seconds, up = "ok", 0.0, 0
        try:
            content = content_of(
                arrived(message, fed.algorithm.timeout), arrays=ArrayRecord, metrics=MetricRecord
            )
            arrays = exchange.from_record(content["arrays"], expected)
            exchange.require_finite(arrays)
            found.append({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
            seconds, up = number_of(content["metrics"], "seconds"), exchange.size_bytes(content["arrays"])
        except (BadReply, BadArrays) as error:
            status = f"failed: {error}"
        values = {"seconds": round(seconds, 4), "bytes_down": 0, "bytes_up": up}
        rows.append(record.row(round_, cohort.arm, request.site, "stays", status, **values))
        fed.observer.reply(cohort.arm, request.site, "stays", status == "ok", seconds)
    if not found:
        raise FederationError("personalization.unseen=average: no site sent the arrays that stay local")
    return rows, average(found)

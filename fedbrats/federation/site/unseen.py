"""How a site without a training of its own uses the global model of a personalised federation.

It is tested at every institution under the arm `federated`. Either the arrays that stay are left as they were at the
start, with statistics from the institution's unlabelled scans or from each scan by itself, or every site agrees to send
its own once, after the last round, and their mean serves (`personalization.unseen=average`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from fedbrats.arrays import travelling
from fedbrats.config.schema import FEDERATED
from fedbrats.federation import arms
from fedbrats.federation.site.personal import make_personal
from fedbrats.federation.site.site import Site
from fedbrats.federation.wire import to_record
from fedbrats.personalization.unseen import INSTANCE, RECALIBRATE, instance_statistics, recalibrate
from fedbrats.seeding import generator
from fedbrats.training.batches import batches

CALIBRATION_BATCHES = 16  # of `train.batch` patches, drawn without a look at the labels


@contextlib.contextmanager
def served(site: Site, content: RecordDict) -> Iterator[None]:
    """The model of a message as the site is to be tested with it: its own, the global one, or the global one unseen."""
    config = content["config"]
    arm, round_, whole = config["arm"], config["round"], bool(config.get("whole", False))
    unseen = arm in (FEDERATED, arms.TRIGGERED) and bool(site.stays_in(arm)) and not whole
    site.load(content, arm, round_ + 1, whole=whole, change=unseen or arm == arms.PERSONAL)
    if arm == arms.PERSONAL:
        make_personal(site, arm, round_)
    with _as_unseen(site) if unseen else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _as_unseen(site: Site) -> Iterator[None]:
    """The network, loaded with the global model, as an institution without a training of its own would use it."""
    assert site.parts.personalization is not None
    network, rule = site.warm.network, site.parts.personalization.unseen
    tensors = travelling(network)
    with torch.no_grad():
        for name, initial in site.warm.initial.items():
            tensors[name].copy_(initial)
    if rule == RECALIBRATE:
        recalibrate(network, _unlabelled(site))
    with instance_statistics(network) if rule == INSTANCE else contextlib.nullcontext():
        yield


def _unlabelled(site: Site) -> Iterator[Tensor]:
    """Patches from anywhere in the scans of `site`, its training scans where it has some."""
    config, cases = site.config, site.cases
    blind = replace(config.train, tumour_share=0.0, augment="none")
    drawn = batches(
        cases.train or cases.val or cases.test,
        generator(config.seed, "unseen", site.name),
        blind,
        site.parts.rules,
        CALIBRATION_BATCHES,
        site.warm.device,
        site.normalise,
    )
    return (images.flip(site.turned) if site.turned else images for images, _ in drawn)


def stays(site: Site, content: RecordDict) -> dict[str, Any]:
    """The site's own arrays after the last round, where its configuration lets them leave (`permits.py`)."""
    started = time.perf_counter()
    own = site.own_arrays(content["config"]["round"] + 1)
    facts = {"num-examples": len(site.cases.train), "seconds": time.perf_counter() - started}
    return {"arrays": to_record(own), "metrics": MetricRecord(facts)}

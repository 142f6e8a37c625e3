"""Flower's simulation as it comes does the steps of the bare loop; the simulation itself needs Ray."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedbrats.bench.bare import bare_loop, train_bare
from fedbrats.bench.jobs import config_of
from fedbrats.bench.rounds import with_workers
from fedbrats.bench.speed import write_job
from fedbrats.bench.stock import _client_app, stock_rounds
from fedbrats.engines.sites import set_identity
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.models.build import build_network, channels_last
from tests.bench.test_parts import TOY


def test_a_site_trains_as_in_the_bare_loop(tmp_path: Path) -> None:
    config = config_of(TOY, tmp_path)
    sites = write_job(tmp_path, config)
    start = initial_arrays(parts_of(config), None)
    set_identity(2)
    asked = RecordDict({"arrays": ArrayRecord(start), "config": ConfigRecord({"server-round": 1})})
    message = Message(asked, 2, "train")
    context = Context(1, 2, {"partition-id": 1, "num-partitions": len(sites)}, RecordDict(), {})
    reply = _client_app(str(tmp_path), sites)(message, context)
    warm = Warm(tmp_path)
    network = channels_last(build_network(config.model))
    network.load_state_dict(start)
    assert len(train_bare(network, warm, Site(sites[1], warm), 1)) == TOY.steps
    found = reply.content["arrays"].to_torch_state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())
    assert not all(torch.equal(found[name], tensor) for name, tensor in start.items())
    assert reply.content["metrics"]["num-examples"] == TOY.cases


def test_a_bare_loop_counts_what_it_has_done(tmp_path: Path) -> None:
    config = config_of(TOY, tmp_path)
    loop = bare_loop(str(tmp_path), write_job(tmp_path, config))
    assert (loop.steps, loop.shapes) == (TOY.all_steps, {(TOY.batch, 4, *[TOY.patch] * 3)})
    assert len(loop.rounds) == TOY.rounds


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_the_rounds_of_flowers_simulation(tmp_path: Path) -> None:
    config = config_of(TOY, tmp_path)
    rounds = stock_rounds(tmp_path, with_workers(config, 2, "ray"), write_job(tmp_path, config))
    assert len(rounds.each) == TOY.rounds
    assert rounds.whole > sum(rounds.each) > 0

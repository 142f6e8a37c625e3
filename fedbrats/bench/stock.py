"""Flower's simulation on ray as its users write one: FedAvg, and a ClientApp that begins anew with every message.

The steps and the preprocessed cases are those of the same run, read by fedbrats; nothing else of it takes part.
"""

from __future__ import annotations

import functools
import logging
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedbrats.bench.bare import train_bare
from fedbrats.bench.rounds import Rounds
from fedbrats.config.schema import Config
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.models.build import build_network, channels_last


def stock_rounds(folder: Path, config: Config, sites: list[str]) -> Rounds:
    """Run the rounds of the run whose inputs `folder` holds, with an actor for each of `runtime.workers`.

    Raises:
        RuntimeError: a round has not been finished.
    """
    import ray
    from flwr.simulation import run_simulation

    start = ArrayRecord(initial_arrays(parts_of(config), None))
    ends: list[float] = []
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=len(sites), min_available_nodes=len(sites))
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(
            grid, start, num_rounds=config.rounds, evaluate_fn=lambda *_: ends.append(time.perf_counter())
        )

    init = {"num_cpus": config.runtime.workers, "log_to_driver": False, "logging_level": logging.ERROR}
    began = time.perf_counter()
    try:
        run_simulation(
            server_app=app,
            client_app=_client_app(str(folder), sites),
            num_supernodes=len(sites),
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": init},
        )
    finally:
        ray.shutdown()
    if len(ends) != config.rounds + 1:
        raise RuntimeError(f"Flower's simulation ended after {len(ends) - 1} of {config.rounds} rounds")
    return Rounds(time.perf_counter() - began, [after - before for before, after in pairwise(ends)], {}, [])


def _client_app(folder: str, sites: list[str]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def _(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        warm = _warm(folder)
        site = Site(sites[int(context.node_config["partition-id"])], warm)
        network = channels_last(build_network(warm.config.model))
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        asked: Any = message.content["config"]
        assert isinstance(asked, ConfigRecord)
        train_bare(network, warm, site, int(asked["server-round"]))
        metrics = MetricRecord({"num-examples": len(site.cases.train)})
        return Message(
            RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics}), reply_to=message
        )

    return app


@functools.lru_cache(maxsize=1)
def _warm(folder: str) -> Warm:
    """The configuration, read once by each actor."""
    return Warm(Path(folder))

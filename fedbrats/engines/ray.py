"""The Ray engine: the same apps in Flower's own simulation, which can span several machines."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedbrats.config.targets import ConfigError
from fedbrats.engines.sites import answer, node_configs
from fedbrats.engines.worker import limit_torch
from fedbrats.federation import flower_env

START = 120.0  # seconds for all nodes to register


def run_ray(
    server_app: ServerApp,
    make_client_app: Callable[[], ClientApp],
    sites: Sequence[str],
    *,
    threads: int = 1,
    gpus_per_site: float = 0.0,
    address: str | None = None,
) -> None:
    """Run `server_app` to its end with one Ray node per site; it hands out its results by closure.

    Flower gives the nodes random ids in random order, so the server has to ask which node is which site;
    the node config is {"partition-id": i, "num-partitions": n, "site": name} as in the local engine. A site
    has no fixed process here: an actor builds the ClientApp once, but a site's messages may go to any
    actor. The server starts when all nodes are there. An actor that died is started again and given its
    message once more; if it dies again, the site has failed in that round.

    Args:
        server_app: as for the local engine.
        make_client_app: picklable callable without arguments; importable on every machine of the cluster.
        sites: names, all different.
        threads: CPUs of each actor, also its torch threads; as many actors run as the machine has room for.
        gpus_per_site: share of a GPU for each actor, 0 for none.
        address: of a running Ray cluster ("auto", "host:port"); None starts Ray on this machine and ends it
            after.

    Raises:
        ConfigError: Ray is not installed.
        ValueError: no sites, or equal names.
        RuntimeError: the nodes do not appear within two minutes.
        Exception: whatever `server_app` raises.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "runtime.engine=ray needs Ray: pip install fedbrats[ray], or use runtime.engine=local"
        )
    import ray
    from flwr.simulation import run_simulation

    configs = list(node_configs(sites).values())
    init: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        init["address"] = address
    # Flower hands on to Ray what it does not know, so that an actor is started again; without, a dead one stays.
    actors = {"num_cpus": threads, "num_gpus": gpus_per_site, "max_restarts": -1, "max_task_retries": 1}
    backend = {"client_resources": actors, "init_args": init}
    with _quiet_flower(), _same_python_path():
        try:
            run_simulation(
                server_app=_when_complete(server_app, len(sites)),
                client_app=_Relay(pickle.dumps(make_client_app), configs, threads),
                num_supernodes=len(sites),
                backend_config=backend,
            )
        finally:
            ray.shutdown()


class _Relay(ClientApp):
    """Stands for the real ClientApp, because Flower pickles the app anew for every message."""

    def __init__(self, make_client_app: bytes, configs: list[dict[str, Any]], threads: int) -> None:
        super().__init__()
        self._make, self._configs, self._threads = make_client_app, configs, threads

    def __call__(self, message: Message, context: Context) -> Message:
        context.node_config.update(self._configs[int(context.node_config["partition-id"])])
        return answer(_build(self._make, self._threads), message, context)


@functools.lru_cache(maxsize=1)
def _build(make_client_app: bytes, threads: int) -> ClientApp:
    """The real ClientApp, once in each actor process."""
    flower_env.quiet()
    app = pickle.loads(make_client_app)()
    limit_torch(threads, "cpu", None)
    return app


def _when_complete(server_app: ServerApp, nodes: int) -> ServerApp:
    """The same app, started when all nodes have registered."""
    waiting = ServerApp()

    @waiting.main()
    def main(grid: Grid, context: Context) -> None:
        deadline = time.monotonic() + START
        while len(list(grid.get_node_ids())) < nodes:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all of {nodes} Ray nodes appeared within {START:.0f} s")
            time.sleep(0.05)
        server_app(grid, context)

    return waiting


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Only errors from Flower, which otherwise announces at every call that run_simulation is deprecated."""
    flower_env.quiet()
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _same_python_path() -> Iterator[None]:
    """Flower adds all of sys.path to PYTHONPATH at every call; take that back."""
    before = os.environ.get("PYTHONPATH")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before

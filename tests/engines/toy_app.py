"""Small apps for the engine tests; a module of its own because worker processes have to import them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fedbrats.engines  # noqa: F401  (sets Flower's environment)

# isort: split
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedbrats.engines.local import run_local

MEGABYTE = 2**20


def record(*values: float, size: int = 1) -> ArrayRecord:
    """Arrays "0", "1", ... of `size` float32, each filled with one value."""
    return ArrayRecord([np.full(size, value, np.float32) for value in values])


def content(arrays: ArrayRecord | None = None, **config: Any) -> RecordDict:
    parts: dict[str, Any] = {"config": ConfigRecord(config)}
    return RecordDict(parts if arrays is None else parts | {"arrays": arrays})


def make(log: str = "", fail: str = "") -> ClientApp:
    """train adds the partition id to every array; what else it does is said in the message's config."""
    if fail == "raise":
        raise ValueError("no such network")
    if fail == "exit":
        os._exit(3)
    app = ClientApp()
    kept: dict[str, Any] = {}

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config, site = message.content["config"], context.node_config["site"]
        if log:
            with open(log, "a") as file:
                file.write(f"{site} {os.getpid()}\n")
        if "change" in config:
            config.clear()
        if config.get("site", site) == site:
            _misbehave(config, site)
        arrays = message.content["arrays"]
        same, kept["arrays"] = kept.get("arrays") is arrays, arrays
        rounds = context.state["rounds"]["n"] + 1 if "rounds" in context.state else 1
        context.state["rounds"] = MetricRecord({"n": rounds})
        out = ArrayRecord()
        for name, array in arrays.items():
            new = np.asarray(array.numpy() + np.float32(context.node_config["partition-id"]))
            out[name] = Array(np.resize(new, config["resize"]) if "resize" in config else new)
        metrics = {"pid": os.getpid(), "rounds": rounds, "same": int(same), "num-examples": 1}
        return Message(RecordDict({"arrays": out, "metrics": MetricRecord(metrics)}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = {"partition": context.node_config["partition-id"], "num-examples": 1}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        import torch

        answer = {"site": context.node_config["site"], "omp": os.environ.get("OMP_NUM_THREADS", "")}
        answer |= {"threads": torch.get_num_threads(), "nodes": context.node_config["num-partitions"]}
        return Message(RecordDict({"config": ConfigRecord(answer)}), reply_to=message)

    return app


def make_with_torch() -> ClientApp:
    import torch  # noqa: F401

    return make()


def _misbehave(config: ConfigRecord, site: str) -> None:
    time.sleep(config.get("sleep", 0))
    if "raise" in config:
        raise ValueError(config["raise"])
    if "exit" in config:
        os._exit(config["exit"])


def serve(main: Callable[[Grid], None]) -> ServerApp:
    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        main(grid)

    return app


def push(grid: Grid, parts: RecordDict, kind: str = "train", nodes: list[int] | None = None) -> list[str]:
    """One message to every node."""
    nodes = list(grid.get_node_ids()) if nodes is None else nodes
    return list(grid.push_messages([grid.create_message(parts, kind, node, "1") for node in nodes]))


def pull(grid: Grid, message_id: str, seconds: float = 60) -> Message:
    """The reply to one message, or TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for reply in grid.pull_messages([message_id]):
            return reply
    raise TimeoutError(message_id)


def ask(
    grid: Grid,
    parts: RecordDict,
    kind: str = "train",
    nodes: list[int] | None = None,
    seconds: float = 60,
) -> list[Message]:
    """Push to every node, pull one by one."""
    return [pull(grid, message_id, seconds) for message_id in push(grid, parts, kind, nodes)]


def value(reply: Message) -> float:
    return float(reply.content["arrays"]["0"].numpy()[0])


def sleep_for_ever(folder: str) -> None:
    """A run of two workers that never ends; each site notes its process in `folder`/pids."""
    import functools

    log = str(Path(folder) / "pids")
    main = serve(lambda grid: ask(grid, content(record(0), sleep=600)) and None)
    run_local(main, functools.partial(make, log=log), ["a", "b"], workers=2)


def print_peak(workers: int, sites: int, size: int) -> None:
    """Print the peak memory of the server process in MB over a round with arrays of `size` MB."""

    def main(grid: Grid) -> None:
        arrays = record(0, size=size * MEGABYTE // 4)
        ask(grid, content(arrays), nodes=[2, 3])
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        for message_id in push(grid, content(arrays)):
            pull(grid, message_id)
        status = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))

    run_local(serve(main), make, [f"site {i}" for i in range(sites)], workers=workers)

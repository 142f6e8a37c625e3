"""What is left when the sites do nothing: messages, checks, aggregation, memory. Parts (c) and (d)."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedbrats.arrays import fingerprint, load, signature, travelling
from fedbrats.bench.rounds import Result, federated_rounds, with_workers
from fedbrats.config.schema import Config
from fedbrats.federation import questions
from fedbrats.federation.wire import from_record, to_record
from fedbrats.tasks import segmentation as task

TOY_FLOATS = 5_000_000  # 20 MB of float32
OVERHEAD_ROUNDS = 5


class ToyNetwork(nn.Module):
    """20 MB of parameters that do nothing."""

    def __init__(self) -> None:
        super().__init__()
        size = TOY_FLOATS // 50
        self.layers = nn.ParameterList([nn.Parameter(torch.zeros(size)) for _ in range(50)])


def toy_client_app() -> ClientApp:
    """A site without data: it loads the model, adds one and sends it back, as exact as a real one in what travels."""
    network, app = ToyNetwork(), ClientApp()
    expected = signature(travelling(network))

    def take(message: Message) -> None:
        load(network, from_record(message.content["arrays"], expected))

    @app.query(questions.JOIN.partition(".")[2])
    def _(message: Message, context: Context) -> Message:
        facts = {"site": str(context.node_config["site"]), "train": 1, "val": 1, "test": 0}
        facts["arrays"] = fingerprint(expected)
        return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)

    @app.train()
    def _(message: Message, context: Context) -> Message:
        take(message)
        metrics = MetricRecord({"num-examples": 1, "steps": 1, "loss": 0.0, "seconds": 0.0})
        arrays = to_record(travelling(network))
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @app.evaluate(questions.VALIDATE.partition(".")[2])
    def _(message: Message, context: Context) -> Message:
        take(message)
        scores = {task.reply_key(region): 1.0 for region in task.REGIONS}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.0, "seconds": 0.0, **scores})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def _toy_rounds(folder: Path, config: Config, sites: int, workers: int) -> list[float]:
    config = replace(with_workers(config, workers), rounds=OVERHEAD_ROUNDS)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    arrays = {name: p.detach().clone() for name, p in ToyNetwork().named_parameters()}
    names = [f"site-{i:02d}" for i in range(sites)]
    return federated_rounds(folder, config, names, toy_client_app, arrays)[1]


def round_overhead(folder: Path, config: Config) -> list[Result]:
    """(c) Seconds per round, training and evaluation, with 20 sites that do nothing and a 20 MB network."""
    rows = []
    for workers, bound in ((0, 0.2), (2, 0.5)):
        rounds = _toy_rounds(folder, config, 20, workers)[1:]  # the first one touches fresh memory
        where = "in this process" if workers == 0 else f"with {workers} workers"
        rows.append(
            (f"(c) round of 20 sites, 20 MB, {where}", f"{statistics.median(rounds):.3f} s", f"<= {bound} s")
        )
    return rows


def _peak_of_toy(folder: str, config: Config, sites: int, workers: int, results: Any) -> None:
    _toy_rounds(Path(folder), config, sites, workers)
    results.put(peak_megabytes())


def peak_megabytes() -> float:
    """Peak resident memory of this process. Not getrusage on Linux: its peak includes the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def server_memory(folder: Path, config: Config) -> list[Result]:
    """(d) Peak memory of the server process (MB) with 5 and with 50 sites."""
    context, rows = multiprocessing.get_context("spawn"), []
    for workers in (0, 2):
        peaks = {}
        for sites in (5, 50):
            results = context.Queue()
            child = context.Process(target=_peak_of_toy, args=(str(folder), config, sites, workers, results))
            child.start()
            peaks[sites] = results.get()
            child.join()
        where = "in this process" if workers == 0 else f"with {workers} workers"
        difference = f"{peaks[5]:.0f} / {peaks[50]:.0f} MB, difference {peaks[50] - peaks[5]:+.1f} MB"
        rows.append((f"(d) server peak, 5 / 50 sites, {where}", difference, "<= 20 MB"))
    return rows

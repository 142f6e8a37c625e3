"""What is left when the sites do nothing: messages, checks, aggregation, memory. Parts (c) and (d)."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.arrays import fingerprint, load, signature, travelling
from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.memory import peak_megabytes
from fedbrats.bench.rounds import Result, Rounds, federated_rounds, with_workers
from fedbrats.federation import questions
from fedbrats.federation.wire import from_record, to_record
from fedbrats.tasks import segmentation as task

LAYERS = 50


@dataclass(frozen=True)
class Idle:
    """Federations of sites that do nothing with a network of `floats` parameters, one for each number of sites."""

    sites: tuple[int, ...]
    floats: int = 5_000_000  # 20 MB of float32
    rounds: int = 5

    def __str__(self) -> str:
        sites = " and ".join(map(str, self.sites))
        return f"{sites} sites that do nothing, {megabytes(self.floats)}, {self.rounds} rounds"


def megabytes(floats: int) -> str:
    return f"{4e-6 * floats:g} MB"


class ToyNetwork(nn.Module):
    """Parameters that do nothing."""

    def __init__(self, floats: int) -> None:
        super().__init__()
        self.layers = nn.ParameterList([nn.Parameter(torch.zeros(floats // LAYERS)) for _ in range(LAYERS)])


def toy_client_app(floats: int) -> ClientApp:
    """A site without data: it loads the model, adds one and sends it back, as exact as a real one in what travels."""
    network, app = ToyNetwork(floats), ClientApp()
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
        scores = {task.SEGMENTATION.reply_key(region): 1.0 for region in task.REGIONS}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.0, "seconds": 0.0, **scores})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def idle_rounds(folder: Path, job: Idle, sites: int, workers: int, algorithm: FedAvg | None = None) -> Rounds:
    """Rounds with `sites` sites."""
    config = with_workers(replace(config_of(Job(), folder), rounds=job.rounds), workers)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    arrays = {name: p.detach().clone() for name, p in ToyNetwork(job.floats).named_parameters()}
    names = [f"site-{i:02d}" for i in range(sites)]
    client = partial(toy_client_app, job.floats)
    return federated_rounds(folder, config, names, client, arrays, algorithm=algorithm)


def round_overhead(folder: Path, job: Idle) -> Iterator[Result]:
    """(c) Seconds per round, training and evaluation, with sites that do nothing."""
    for sites in job.sites:
        for workers, bound in ((0, 0.2), (2, 0.5)):
            rounds = idle_rounds(folder, job, sites, workers).each[1:]  # the first one touches fresh memory
            what = f"(c) round of {sites} sites, {megabytes(job.floats)}, {_where(workers)}"
            yield what, f"{statistics.median(rounds):.3f} s, median of {len(rounds)}", f"<= {bound} s"


def _where(workers: int) -> str:
    return "in this process" if workers == 0 else f"with {workers} workers"


def _peak_of_idle(
    folder: str, job: Idle, sites: int, workers: int, results: Any, algorithm: FedAvg | None = None
) -> None:
    idle_rounds(Path(folder), job, sites, workers, algorithm)
    results.put(peak_megabytes())


def peak_of_idle(folder: Path, job: Idle, sites: int, workers: int, algorithm: FedAvg | None = None) -> float:
    """Peak memory (MB) of a process of its own in which the rounds go."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=_peak_of_idle, args=(str(folder), job, sites, workers, results, algorithm))
    child.start()
    peak: float = results.get()
    child.join()
    return peak


def server_memory(folder: Path, job: Idle) -> Iterator[Result]:
    """(d) Peak memory of the server process (MB) with few and with many sites."""
    for workers in (0, 2):
        peaks = [peak_of_idle(folder, job, sites, workers) for sites in job.sites]
        found = " / ".join(f"{peak:.0f}" for peak in peaks)
        what = f"(d) server peak, {' / '.join(map(str, job.sites))} sites, {_where(workers)}"
        yield what, f"{found} MB, difference {peaks[-1] - peaks[0]:+.1f} MB", "<= 20 MB"

"""A federation without the rest of a run, timed round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.commands.run.run import start_engine
from fedbrats.config.schema import FEDERATED, Config
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.joining import join
from fedbrats.federation.server.round_loop import run_round
from fedbrats.federation.server.state import Federation
from fedbrats.runs.checkpoint import Model
from fedbrats.runs.rounds import Row

Result = tuple[str, str, str]  # what, figure, bound


class Silent:
    """An observer that shows nothing."""

    def phase_started(self, round_: int, phase: str, asked: Sequence[tuple[str, str]]) -> None: ...

    def arrived(self, asked: Collection[tuple[str, str]]) -> None: ...

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None: ...

    def round_finished(self, round_: int, rows: list[Row]) -> None: ...


def _federation(folder: Path, config: Config, sites: Sequence[str], arrays: dict[str, Tensor]) -> Federation:
    return Federation(
        algorithm=FedAvg(),
        cohorts=[Cohort(FEDERATED, tuple(sites))],
        models={FEDERATED: Model(arrays)},
        folder=folder,
        rounds=config.rounds,
        observer=Silent(),
        evaluate_every=config.runtime.evaluate_every,
    )


def federated_rounds(
    folder: Path, config: Config, sites: list[str], client: Callable[[], ClientApp], arrays: dict[str, Tensor]
) -> tuple[float, list[float]]:
    """Seconds of the whole engine call, starting its processes included, and of each round in it."""
    fed = _federation(folder, config, sites, arrays)
    rounds: list[float] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        fed.members = join(grid, fed.expected(FEDERATED), sites, 600)
        for round_ in range(1, config.rounds + 1):
            started = time.perf_counter()
            rows = run_round(grid, fed, round_)
            rounds.append(time.perf_counter() - started)
            assert all(row["status"] == "ok" for row in rows), rows

    started = time.perf_counter()
    start_engine(config, app, client, sites, dict.fromkeys(sites, 1.0))
    return time.perf_counter() - started, rounds


def with_workers(config: Config, workers: int, engine: str = "local") -> Config:
    return replace(config, runtime=replace(config.runtime, workers=workers, engine=engine))

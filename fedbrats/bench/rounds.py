"""A federation without the rest of a run, timed round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.bench.memory import resident_megabytes
from fedbrats.commands.run.run import start_engine
from fedbrats.config.schema import FEDERATED, Config
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.joining import join
from fedbrats.federation.server.round_loop import run_round
from fedbrats.federation.server.state import Federation
from fedbrats.runs.checkpoint import Model
from fedbrats.runs.rounds import Row

Result = tuple[str, str, str]  # what, figure, bound


@dataclass(frozen=True)
class Rounds:
    """A federation that has run: seconds of the engine call, with the start of its processes, and of each round."""

    whole: float
    each: list[float]
    arrays: dict[str, Tensor]  # the model at the end
    failed: list[str]  # what sites said that failed
    megabytes: list[float] = field(default_factory=list)  # resident in the server's process after each round


class Silent:
    """An observer that shows nothing."""

    def phase_started(self, round_: int, phase: str, asked: Sequence[tuple[str, str]]) -> None: ...

    def arrived(self, asked: Collection[tuple[str, str]]) -> None: ...

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None: ...

    def round_finished(self, round_: int, rows: list[Row]) -> None: ...


def _federation(
    folder: Path, config: Config, sites: Sequence[str], arrays: dict[str, Tensor], algorithm: FedAvg
) -> Federation:
    return Federation(
        algorithm=algorithm,
        cohorts=[Cohort(FEDERATED, tuple(sites), algorithm)],
        models={FEDERATED: Model(arrays)},
        folder=folder,
        rounds=config.rounds,
        observer=Silent(),
        evaluate_every=config.runtime.evaluate_every,
    )


def federated_rounds(
    folder: Path,
    config: Config,
    sites: list[str],
    client: Callable[[], ClientApp],
    arrays: dict[str, Tensor],
    *,
    may_fail: bool = False,
    algorithm: FedAvg | None = None,
) -> Rounds:
    """Run the rounds of `config` at `sites`, starting from `arrays`, by `algorithm` (FedAvg where there is none).

    Raises:
        RuntimeError: a site failed, unless it may; then the rounds end there.
    """
    fed = _federation(folder, config, sites, arrays, algorithm or FedAvg())
    megabytes: list[float] = []
    each: list[float] = []
    failed: list[str] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        fed.members = join(grid, fed.expected(FEDERATED), sites, 600)
        for round_ in range(1, config.rounds + 1):
            started = time.perf_counter()
            rows = run_round(grid, fed, round_)
            each.append(time.perf_counter() - started)
            megabytes.append(resident_megabytes())
            failed.extend(str(row["status"]) for row in rows if row["status"] != "ok")
            if failed and not may_fail:
                raise RuntimeError(f"a site of the benchmark failed: {failed[0]}")

    started = time.perf_counter()
    start_engine(config, app, client, sites, dict.fromkeys(sites, 1.0))
    return Rounds(time.perf_counter() - started, each, fed.models[FEDERATED].arrays, failed, megabytes)


def with_workers(config: Config, workers: int, engine: str = "local") -> Config:
    return replace(config, runtime=replace(config.runtime, workers=workers, engine=engine))

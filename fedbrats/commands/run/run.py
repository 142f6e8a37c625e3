"""One run, from a configuration to a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from omegaconf import DictConfig

from fedbrats.checks.config import check_config, checked
from fedbrats.checks.plan import check_dealt, check_plan
from fedbrats.checks.settings import (
    check_same_cases,
    cores,
    resumed_config,
    settle,
)
from fedbrats.commands.run.planning import planned
from fedbrats.commands.run.progress import Progress
from fedbrats.commands.run.server import (
    federation,
    joined,
    metrics_of,
    trained_and_tested,
    write_failure,
    write_reports,
    write_results,
)
from fedbrats.commands.run.steps import counted, step_counts
from fedbrats.commands.run.tracking import check_trackers, tracked
from fedbrats.config.schema import FEDERATED, LOCAL, POOLED, Config, save_config
from fedbrats.config.secure import mechanism
from fedbrats.config.targets import ConfigError
from fedbrats.data.partition import Site
from fedbrats.data.prepare import Prepared, prepare
from fedbrats.federation import arms
from fedbrats.federation.initial import check_init
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.personal import write_personalization
from fedbrats.federation.server.state import FederationError
from fedbrats.federation.site.app import make_client_app
from fedbrats.files import remove_partial, write_json
from fedbrats.models.node import why_this_size
from fedbrats.models.planned import awaits_plan
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs.environment import write_environment
from fedbrats.runs.privacy import collect_steps
from fedbrats.runs.site_cases import site_folder, write_site_cases
from fedbrats.scenario.clock import site_times, steps_within
from fedbrats.studies.baselines import check_baselines, take_over, without_taken
from fedbrats.training.amount import BOTH, pooled_steps, steps_per_round

log = logging.getLogger(__name__)


def run(
    config: DictConfig | Config, folder: Path, overrides: Sequence[str] = (), base: Path | None = None
) -> Path:
    """Run or resume one federation with its baselines; everything it leaves is in the returned folder.

    Args:
        config: composed by Hydra.
        folder: run folder, created; ignored for a resume, which continues in `run.resume`.
        overrides: what was given on the command line, kept for the record.
        base: folder that relative paths of the configuration start from; None is the working directory.

    Raises:
        ConfigError: the configuration cannot run.
        DataError: cases that cannot be used.
        FederationError: the federation cannot start or go on. The folder then holds a report of what there is.
    """
    settled, folder, resumed = _begun(config, folder, overrides, base)
    with Progress() as progress:
        started = time.perf_counter()
        if isinstance(config, DictConfig) and not resumed and (said := why_this_size(config)):
            progress.message(said)
        allow = partial(check_plan, settled, progress.message)
        prepared = prepare(settled.data, settled.partition, cores(), progress.message, allow, settled.task)
        check_init(settled, prepared.cached, prepared.sites, private=bool(mechanism(settled.privacy)))
        check_dealt(settled, prepared.sites, prepared.patients.of)
        check_baselines(settled, prepared)
        settled = within_budget(settled, prepared.sites)
        if resumed:
            check_same_cases(folder, prepared)
        write_inputs(folder, settled, prepared, overrides)
        if awaits_plan(settled):
            settled = planned(folder, settled, [site.name for site in prepared.sites], progress)
            check_config(settled)
            save_config(settled, folder / "config.yaml")
        if said := write_personalization(folder, settled, parts_of(settled)):
            progress.message(said)
        try:
            mine = replace(settled, arms=without_taken(settled))
            with tracked(progress, settled, folder, asdict(settled)) as observer:
                rows = _federate(folder, mine, prepared, observer)
            if settled.run.baselines:
                rows += take_over(folder, settled, metrics_of(settled))
        except FederationError as error:
            write_failure(folder, settled, error, prepared.skipped)
            raise
        write_results(folder, settled, rows, time.perf_counter() - started, prepared.skipped)
        if settled.report.html:
            progress.message("writing the reports")
            write_reports(folder)
    return folder


def _begun(
    config: DictConfig | Config, folder: Path, overrides: Sequence[str], base: Path | None
) -> tuple[Config, Path, bool]:
    """The settled configuration, the folder of the run, made if it is new, and whether it is resumed."""
    asked = checked(config, base)
    if asked.runtime.engine == "superlink":
        raise ConfigError(
            "runtime.engine=superlink: across hospitals a study is begun by `fedbrats study start`."
        )
    resumed = asked.run.resume is not None
    folder = Path(str(asked.run.resume)) if resumed else folder
    settled = resumed_config(asked, overrides) if resumed else settle(asked)
    check_trackers(settled.report.track)
    if not resumed and (folder / "config.yaml").exists():
        raise ConfigError(
            f"{folder} already holds a run: continue it with run.resume={folder} or choose another."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if resumed:
        remove_partial(folder)
    return settled, folder, resumed


def within_budget(config: Config, sites: Sequence[Site]) -> Config:
    """With `scenario.clock.budget`, every site makes as many steps as it has time for; `train.site_steps` says so.

    Raises:
        ConfigError: other work has been set for single sites.
    """
    clock = config.scenario.clock
    if clock.budget is None:
        return config
    training = [site.name for site in sites if not site.holdout]
    times = site_times(clock, training)
    steps = {site: steps_within(clock.budget, times[site], config.train) for site in training}
    if config.train.site_epochs or config.train.site_steps not in ({}, steps):
        raise ConfigError(
            f"scenario.clock.budget={clock.budget:g} and train.site_steps or train.site_epochs exclude each other: "
            "both say how much single sites do; remove one."
        )
    return replace(config, train=replace(config.train, site_steps=steps))


def write_inputs(folder: Path, config: Config, prepared: Prepared, overrides: Sequence[str]) -> None:
    """Write what the run starts from: configuration, environment, partition and each site's list of cases."""
    save_config(config, folder / "config.yaml")
    write_environment(folder, overrides, metrics_of(config))
    write_json(folder / "partition.json", prepared.to_json(), private=True)
    training = [site for site in prepared.sites if not site.holdout]
    for site in prepared.sites:
        write_site_cases(folder, site, prepared.cached, prepared.patients.of, prepared.labels)
    pooled = arms.pooled_site(prepared.sites)
    write_site_cases(folder, pooled, prepared.cached, prepared.patients.of, prepared.labels)
    members = {site.name: len(site.train) for site in training}
    write_json(site_folder(folder, pooled.name) / "members.json", members, private=True)


def _federate(folder: Path, config: Config, prepared: Prepared, progress: Progress) -> list[dict[str, Any]]:
    """Train all arms and test their models; rows of `cases.csv`."""
    names, parts = [site.name for site in prepared.sites], parts_of(config)
    if POOLED in config.arms:
        names.append(arms.POOLED_SITE)
    fed = federation(folder, config, parts, prepared.sites, progress)
    rows: list[dict[str, Any]] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        fed.members = joined(grid, folder, config, names)
        rows.extend(trained_and_tested(grid, fed, config, parts, prepared.sites))

    with step_counts(config, folder, names) as counts:
        progress.start(config.rounds, [c.arm for c in fed.cohorts], counted(counts, config, prepared, fed))
        training = [site.name for site in prepared.sites if not site.holdout]
        client = partial(make_client_app, str(folder), counts, baselines=training)
        start_engine(config, app, client, names, site_loads(config, prepared.sites))
    if isinstance(parts.privacy, DpSgd):
        collect_steps(folder, names)
    return rows


def site_loads(config: Config, sites: list[Site]) -> dict[str, float]:
    """Optimiser steps that each site takes per round over all arms, to deal the sites evenly to the workers."""
    steps = {
        s.name: float(steps_per_round(s.name, len(s.train), config.train)) for s in sites if not s.holdout
    }
    shares = sum(arm in config.arms for arm in (FEDERATED, LOCAL))
    loads = {name: shares * value for name, value in steps.items()} | {
        s.name: 0.0 for s in sites if s.holdout
    }
    if POOLED in config.arms:
        members = {s.name: len(s.train) for s in sites if not s.holdout}
        loads[arms.POOLED_SITE] = float(pooled_steps(members, config.train))
        if config.train.pooled_steps == BOTH:
            loads[arms.POOLED_SITE] += pooled_steps(members, config.train, in_a_row=True)
    return loads


def start_engine(
    config: Config, server: ServerApp, client: Callable[[], Any], sites: list[str], loads: dict[str, float]
) -> None:
    """Run both apps on the configured engine until the server is done."""
    runtime = config.runtime
    workers = runtime.workers if runtime.workers is not None else 1
    if runtime.engine == "ray":
        from fedbrats.engines.ray import run_ray

        gpus = torch.cuda.device_count() / max(1, workers) if runtime.device == "cuda" else 0.0
        run_ray(server, client, sites, threads=runtime.threads, gpus_per_site=gpus, address=runtime.address)
        return
    from fedbrats.engines.local import run_local

    fraction = runtime.memory_fraction
    if runtime.device == "cuda" and fraction is None and workers > 1:
        fraction = torch.cuda.device_count() / workers
    run_local(
        server,
        client,
        sites,
        workers=min(workers, len(sites)),
        threads=runtime.threads,
        load=loads,
        memory_fraction=fraction,
        device=runtime.device,
    )

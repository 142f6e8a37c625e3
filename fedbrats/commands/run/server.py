"""What the server does in a run, wherever its sites are: train all arms, test their models, write what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedbrats.commands.run.summary import arms_summary, write_summary
from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.schema import FEDERATED, Config, TrainConfig
from fedbrats.config.versions import SAME, own_versions
from fedbrats.data.partition import Site
from fedbrats.federation import arms
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.federation.server.central_privacy import CentralPrivacy
from fedbrats.federation.server.final_test import test_all, write_privacy
from fedbrats.federation.server.joining import join
from fedbrats.federation.server.round_loop import serve
from fedbrats.federation.server.state import Federation, Member, Observer
from fedbrats.federation.server.survey import ask_survey
from fedbrats.metrics.table import Facts, facts_of
from fedbrats.privacy.central import Central
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs import rounds, secure
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.checkpoint import Model, load_checkpoint
from fedbrats.runs.classified import write_scores
from fedbrats.runs.curves import curve_of
from fedbrats.scenario.clock import HOUR, Clock, convergence, site_times, work_of
from fedbrats.scenario.participation import Participation
from fedbrats.studies.baselines import shared_arms
from fedbrats.training.amount import BOTH
from fedbrats.training.schedule import plateau_factor


def federation(
    folder: Path, config: Config, parts: Parts, sites: Sequence[Site], observer: Observer
) -> Federation:
    """The server's state, from the newest checkpoint where there is one."""
    training = [site.name for site in sites if not site.holdout]
    cohorts = arms.cohorts(config.arms, training, parts.algorithm, config.train.pooled_steps == BOTH)
    snapshot = load_checkpoint(folder / "checkpoints")
    models, finished = (snapshot.models, snapshot.round) if snapshot else ({}, 0)
    for cohort in cohorts if not snapshot else ():
        start = initial_arrays(parts, config.train.init, config.run.trust)
        models[cohort.arm] = Model(parts.without_stays(start) if cohort.federated else start)
    rounds.start(folder, finished, parts.task)
    if parts.secure is not None:
        secure.start(folder, finished)
    privacy = parts.privacy
    patients = privacy if isinstance(privacy, DpSgd) else None
    return Federation(
        algorithm=parts.algorithm,
        cohorts=cohorts,
        models=models,
        folder=folder,
        rounds=config.rounds,
        observer=observer,
        task=parts.task,
        regions=parts.regions,
        metrics=metrics_of(config),
        trainable=parts.trainable,
        evaluate_every=config.runtime.evaluate_every,
        one_exchange=config.runtime.one_exchange is True,
        checkpoint_every=config.runtime.checkpoint_every,
        keep_checkpoints=config.runtime.keep_checkpoints,
        lr_factor=_lr_factor(config.train),
        stop_patience=config.train.stop_patience,
        participation=participation_of(config, sites),
        hours=rounds.simulated_hours(folder),
        horizon=config.scenario.clock.horizon / HOUR if config.scenario.clock.enabled else math.inf,
        protection=CentralPrivacy(privacy, folder, finished) if isinstance(privacy, Central) else None,
        secure=parts.secure,
        losses_stay=patients is not None,
        validation_stays=patients is not None and patients.validation == "home",
        finished_round=finished,
        checkpointed=finished,
    )


def participation_of(config: Config, sites: Sequence[Site]) -> Participation | None:
    """Who takes part in which round, None where everybody always does and no clock runs."""
    scenario = config.scenario
    if scenario == ScenarioConfig():
        return None
    training = [site for site in sites if not site.holdout]
    clock = None
    if scenario.clock.enabled:
        times = site_times(scenario.clock, [site.name for site in training])
        work = {s.name: work_of(s.name, len(s.train), len(s.val), config.train) for s in training}
        clock = Clock(scenario.clock, times, work, config.seed)
    return Participation(scenario, config.seed, clock)


def _lr_factor(train: TrainConfig) -> Callable[[list[float]], float]:
    """The server's part of the learning rate, from the validation losses so far."""
    if train.schedule != "plateau":
        return lambda losses: 1.0
    settings = (train.plateau_factor, train.plateau_patience, train.plateau_cooldown)
    return lambda losses: plateau_factor(losses, *settings)


def joined(
    grid: Grid,
    folder: Path,
    config: Config,
    names: Sequence[str],
    registered: Mapping[int, str] | None = None,
) -> dict[str, Member]:
    """Ask every node who it is and what it holds, as `join`; what a private site's ledger must know is in `folder`."""
    parts, versions = parts_of(config), own_versions() if config.run.versions == SAME else None
    private = isinstance(parts.privacy, DpSgd) and (folder / rounds.TABLE.name).is_file()
    used = rounds.used(folder, FEDERATED) if private else {}
    how = (parts.algorithm.timeout, parts.stays, parts.algorithm.max_cases)
    return join(grid, parts.signature, names, *how, used, versions, registered)


def trained_and_tested(
    grid: Grid, fed: Federation, config: Config, parts: Parts, sites: list[Site]
) -> list[dict[str, Any]]:
    """Train all arms to their end and test their models; rows of `cases.csv`."""
    ask_survey(grid, fed, config.survey)
    serve(grid, fed)
    rows = test_all(grid, fed, config, parts, sites)
    write_privacy(grid, fed, parts)
    return rows


def metrics_of(config: Config) -> dict[str, Facts]:
    """What is known of the metrics that are scored."""
    return facts_of(parts_of(config).metrics, config.metrics.convention)


def write_results(
    folder: Path,
    config: Config,
    rows: list[dict[str, Any]],
    seconds: float,
    skipped: Sequence[dict[str, str]] = (),
) -> None:
    """Write `cases.csv` and the summary of a run that came to its end; `skipped`: cases that were left out."""
    metrics, facts = metrics_of(config), _facts(config, skipped)
    if parts_of(config).classifies:
        facts |= write_scores(folder, rows)
    else:
        cases_table(metrics).write(folder, rows, private=True)
    if config.run.baselines:
        facts |= {"baselines": {"run": Path(config.run.baselines).name, "arms": shared_arms(config)}}
    if config.scenario.clock.enabled:
        facts["clock"] = clock_facts(folder, config)
    if rows and metrics:
        facts |= arms_summary(rows, metrics, config.metrics.convention)
    write_summary(folder, "finished", **facts, wall_seconds=round(seconds, 1))


def clock_facts(folder: Path, config: Config) -> dict[str, float]:
    """Simulated hours of the federated arm and FeTS's convergence score, 0 where nothing was validated."""
    curve = curve_of(rounds.read_rounds(folder))
    mine = curve[(curve["arm"] == FEDERATED) & curve["hours"].notna()]
    horizon = config.scenario.clock.horizon / HOUR
    worth = parts_of(config).task.worths(mine)
    score = convergence(mine["hours"].tolist(), worth.tolist(), horizon)
    return {"hours": rounds.simulated_hours(folder), "horizon_hours": horizon, "convergence": round(score, 6)}


def write_failure(
    folder: Path, config: Config, error: Exception, skipped: Sequence[dict[str, str]] = ()
) -> None:
    """Write why a run did not come to its end, and the report of what there is."""
    write_summary(folder, f"failed: {error}", **_facts(config, skipped))
    if config.report.html:
        write_reports(folder)


def write_reports(folder: Path) -> None:
    """Write both reports."""
    # Drawing takes a second to import, and many runs have no report.
    from fedbrats.report.html import write_report
    from fedbrats.report.public import write_public_report

    write_report(folder)
    write_public_report(folder)


def _facts(config: Config, skipped: Sequence[dict[str, str]]) -> dict[str, Any]:
    return {
        "convention": config.metrics.convention,
        "rounds": config.rounds,
        "skipped": list(skipped),
        "selected": config.report.select,
    }

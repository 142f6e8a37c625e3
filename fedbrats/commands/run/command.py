"""Run one federation, or with -m a sweep of them: `fedbrats run strategy=fedprox strategy.mu=0.01`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from fedbrats.commands.compose import CANNOT_COMPOSE, own_folder, register_with_hydra
from fedbrats.commands.errors import explain_errors
from fedbrats.commands.overrides import readable
from fedbrats.commands.run.sweep import (
    BEGIN,
    DONE,
    FINISHED,
    GO_ON,
    Listing,
    note,
    same_keys,
    standing,
    sweep_folder,
)
from fedbrats.config.folder import conf_folder
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.engines.warm import cool_down, own_start_method, warm_up

FULL = "HYDRA_FULL_ERROR"
SHARED = (
    "hydra.job.config.override_dirname.exclude_keys"  # of all jobs of a sweep; names of jobs go by the others
)
BASIC = "basic_sweeper"  # which tries what it is told and searches nothing
JOBLIB = "JoblibLauncher"
NO_WORKERS = "runtime.workers=0"  # so that none need be started early
LOOKS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}  # nothing is run


def main(arguments: list[str]) -> int:
    """Run what Hydra makes of the arguments; its own options (-m, --cfg job, --help, --config-dir) are among them."""
    sweep = bool({"-m", "--multirun"} & set(arguments))
    try:
        own, rest = own_folder(arguments)
        rest = readable(rest, sweep)
        shared = ",".join(f"'{key}'" for key in same_keys(rest)) if sweep else ""
        rest += [f"{SHARED}=[{shared}]"] if sweep else []
        arguments = [*(["--config-dir", str(own)] if own else []), *rest]
    except ConfigError as error:
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments  # where Hydra reads them
    if not (LOOKS & set(arguments) or NO_WORKERS in arguments):
        warm_up()
    try:
        return _hydra()
    finally:
        cool_down()


def _hydra() -> int:
    """Have Hydra read its arguments and run what comes of them; the exit status."""
    register_with_hydra()
    Listing.failed = []
    try:
        with _raw_errors():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(_job)()
    except OSError as error:  # those of a job have been explained
        print(
            f"fedbrats: {error}: choose a folder that can be written, hydra.run.dir=<folder>.",
            file=sys.stderr,
        )
        return 2
    except CANNOT_COMPOSE as error:
        if FULL in os.environ:
            raise
        said = " ".join(": ".join(map(str, filter(None, [error, error.__cause__]))).split())
        print(f"fedbrats: {said}", file=sys.stderr)
        return 2
    return 2 if Listing.failed else 0


@contextlib.contextmanager
def _raw_errors() -> Iterator[None]:
    """Hydra raises what goes wrong instead of printing it and leaving, and a log on a full disk is no second error."""
    before, logging.raiseExceptions = os.environ.get(FULL), False
    os.environ[FULL] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FULL]


def _job(config: DictConfig) -> float | None:
    """One run, or one job of a sweep, whose score is returned for who searches by it."""
    from fedbrats.report.terminal import print_result_table

    own_start_method()
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    hydra_config = HydraConfig.get()
    folder, sweep = Path(hydra_config.runtime.output_dir), hydra_config.mode == RunMode.MULTIRUN
    with explain_errors(config, folder):
        finished_before = _run(config, folder)
        print_result_table(folder, Console())
        if config.report.html and not finished_before:
            print(f"report: {folder / 'report.html'}, to hand out: {folder / 'report_public.html'}")
        return _score(config, folder) if sweep and BASIC not in hydra_config.sweeper._target_ else None
    return None


def _run(config: DictConfig, folder: Path) -> bool:
    """Run what `config` asks for in `folder`; whether a job of a sweep was finished before."""
    from fedbrats.checks.config import checked
    from fedbrats.checks.settings import settle
    from fedbrats.commands.run.run import run
    from fedbrats.studies.baselines import find_baselines

    hydra_config = HydraConfig.get()
    # Hydra may have changed directory (hydra.job.chdir); paths start from where the command was called.
    overrides, base = list(hydra_config.overrides.task), Path(hydra_config.runtime.cwd)
    if hydra_config.mode != RunMode.MULTIRUN:
        run(config, folder, overrides, base)
        return False
    _keep_gpu(config)
    how = standing(folder, config, base)
    if how == GO_ON:
        overrides, config.run.resume = [], str(folder)
    elif how == BEGIN and config.run.baselines is None:
        found = find_baselines(sweep_folder(), settle(checked(config, base)))
        config.run.baselines = None if found is None else str(found)
    if how != FINISHED:
        run(config, folder, overrides, base)
    note(sweep_folder(), folder, how if how == FINISHED else DONE)
    return how == FINISHED


def _keep_gpu(config: DictConfig) -> None:
    """In a process of joblib, which runs several jobs at once, take the GPU that the process works on."""
    launcher = HydraConfig.get().launcher
    if JOBLIB not in launcher._target_ or config.runtime.device == "cpu":
        return
    from joblib import effective_n_jobs  # type: ignore[import-untyped]

    from fedbrats.studies.gpu_slots import keep_gpu

    keep_gpu(sweep_folder(), effective_n_jobs(launcher.n_jobs), config.run.jobs_per_gpu)


def _score(config: DictConfig, folder: Path) -> float:
    from fedbrats.config.schema import typed
    from fedbrats.runs.run_folder import read_run
    from fedbrats.studies.objective import objective

    return objective(read_run(folder), typed(config).objective)


# A process that a launcher starts reads this file before it composes a configuration.
register_with_hydra()

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
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from fedbrats.commands.compose import own_folder, register_with_hydra
from fedbrats.commands.errors import Failures, explain_errors
from fedbrats.commands.overrides import readable
from fedbrats.config.folder import conf_folder
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.engines.warm import warm_up

FULL = "HYDRA_FULL_ERROR"
LOOKS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}  # nothing is run


def main(arguments: list[str]) -> int:
    """Run what Hydra makes of the arguments; its own options (-m, --cfg job, --help, --config-dir) are among them."""
    try:
        own, rest = own_folder(arguments)
        rest = readable(rest, sweep=bool({"-m", "--multirun"} & set(rest)))
        arguments = [*(["--config-dir", str(own)] if own else []), *rest]
    except ConfigError as error:
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments  # where Hydra reads them
    if not LOOKS & set(arguments):
        warm_up()
    register_with_hydra()
    failures = Failures()

    def job(config: DictConfig) -> None:
        _run(config, failures)

    try:
        with _raw_errors():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
    except OSError as error:  # those of a job have been explained
        print(
            f"fedbrats: {error}: choose a folder that can be written, hydra.run.dir=<folder>.",
            file=sys.stderr,
        )
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        if FULL in os.environ:
            raise
        said = " ".join(": ".join(map(str, filter(None, [error, error.__cause__]))).split())
        print(f"fedbrats: {said}", file=sys.stderr)
        return 2
    if failures.of:
        print(f"fedbrats: failed: job {', '.join(failures.of)}; the reasons stand above.", file=sys.stderr)
    return 2 if failures.of else 0


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


def _run(config: DictConfig, failures: Failures) -> None:
    """One job."""
    from fedbrats.commands.run.run import run
    from fedbrats.report.terminal import print_result_table

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with explain_errors(config, folder, failures):
        # Hydra may have changed directory (hydra.job.chdir); paths start from where the command was called.
        run(config, folder, list(hydra_config.overrides.task), Path(hydra_config.runtime.cwd))
        print_result_table(folder, Console())
        if config.report.html:
            print(f"report: {folder / 'report.html'}, to hand out: {folder / 'report_public.html'}")

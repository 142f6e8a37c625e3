"""Run one federation, or with -m a sweep of them: `fedbrats run strategy=fedprox strategy.mu=0.01`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from fedbrats.commands.compose import own_folder, register_with_hydra
from fedbrats.commands.errors import explain_errors
from fedbrats.commands.overrides import readable
from fedbrats.config.folder import conf_folder
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.engines.warm import warm_up

LOOKS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}  # nothing is run


def main(arguments: list[str]) -> int:
    """Run what Hydra makes of the arguments; its own options (-m, --cfg job, --help, --config-dir) are among them."""
    try:
        own_folder(arguments)
        arguments = readable(arguments, sweep=bool({"-m", "--multirun"} & set(arguments)))
    except ConfigError as error:
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments  # where Hydra reads them
    if not LOOKS & set(arguments):
        warm_up()
    register_with_hydra()
    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(_run)()
    return 0


def _run(config: DictConfig) -> None:
    """One job."""
    from fedbrats.commands.run.run import run
    from fedbrats.report.terminal import print_result_table

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with explain_errors(config, folder):
        # Hydra may have changed directory (hydra.job.chdir); paths start from where the command was called.
        run(config, folder, list(hydra_config.overrides.task), Path(hydra_config.runtime.cwd))
        print_result_table(folder, Console())
        print(f"report: {folder / 'report.html'}")

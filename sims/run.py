"""Run one federation, or with -m a sweep of them: `python sims/run.py strategy=fedprox strategy.mu=0.01`."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from fedbrats.commands.compose import register_with_hydra
from fedbrats.commands.errors import explain_errors
from fedbrats.engines.warm import warm_up

register_with_hydra()


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(config: DictConfig) -> None:
    """Compose the configuration and run it."""
    from fedbrats.commands.run.run import run
    from fedbrats.report.terminal import print_result_table

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with explain_errors(config, folder):
        run(config, folder, list(hydra_config.overrides.task))
        print_result_table(folder, Console())
        print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    warm_up()
    main()

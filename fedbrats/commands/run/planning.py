"""The plan of a simulation's network: the sites of this machine are asked before the run is set up."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedbrats.commands.run.progress import Progress
from fedbrats.commands.run.server import joined
from fedbrats.config.schema import Config
from fedbrats.engines.local import run_local
from fedbrats.federation.server.planning import planned_by_sites
from fedbrats.federation.site.app import make_client_app


def planned(folder: Path, config: Config, sites: list[str], progress: Progress) -> Config:
    """`config`, which awaits its plan and is written in `folder` as it is, with the plan of `sites`.

    They are asked in this process, as they answer from what is written of their cases.

    Raises:
        ConfigError, FederationError: as `planned_by_sites`.
    """
    app, found = ServerApp(), list[Config]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        members = joined(grid, folder, config, sites)
        found.append(planned_by_sites(grid, folder, config, members, progress, progress.message))

    run_local(app, partial(make_client_app, str(folder)), sites, workers=0, threads=config.runtime.threads)
    return found[0]

"""`site start`: SuperNode and SuperExec of this site, for as long as the command runs."""

from __future__ import annotations

import logging

from fedbrats.commands.site.words import failed, parser, pid_file
from fedbrats.config.site_file import load_site_file
from fedbrats.config.targets import ConfigError

PORT = 9094  # Flower's own choice


def main(arguments: list[str]) -> int:
    """Run until told to end; 2 for a configuration that cannot be used."""
    asked = parser("Connect to the server of the federation and take part in its studies, until stopped.")
    asked.add_argument(
        "--port", type=int, default=PORT, help=f"between its processes, on this machine only ({PORT})"
    )
    options = asked.parse_args(arguments)
    from fedbrats.engines.superlink.processes import run_all
    from fedbrats.engines.superlink.programs import environment, site_programs

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        site = load_site_file(options.site)
        programs = site_programs(site, options.port)
        print(
            f"{site.name}: connecting to {site.server.address}; logs in {programs[0].log.parent}", flush=True
        )
        return run_all(programs, environment(options.site, site.storage, "site"), pid_file(site))
    except (ConfigError, OSError) as error:
        return failed(error)

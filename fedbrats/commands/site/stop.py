"""`site stop`: end what `site start` runs."""

from __future__ import annotations

from fedbrats.commands.site.words import failed, parser, pid_file
from fedbrats.config.site_file import load_site_file
from fedbrats.config.targets import ConfigError


def main(arguments: list[str]) -> int:
    """End it and wait; 2 for a configuration that cannot be used."""
    options = parser("End what `fedbrats site start` runs here.").parse_args(arguments)
    from fedbrats.engines.superlink.processes import stop

    try:
        site = load_site_file(options.site)
        print("stopped" if stop(pid_file(site)) else "nothing runs here")
    except (ConfigError, OSError) as error:
        return failed(error)
    return 0

"""`site start`: SuperNode and SuperExec of this site, for as long as the command runs."""

from __future__ import annotations

import logging

from fedbrats.commands.server import only_option
from fedbrats.commands.site.words import failed, parser, pid_file
from fedbrats.commands.words import path
from fedbrats.config.site_file import load_site_file
from fedbrats.config.targets import ConfigError


def main(arguments: list[str]) -> int:
    """Run until told to end; 2 for a configuration that cannot be used."""
    asked = parser("Connect to the server of the federation and take part in its studies, until stopped.")
    only_option(asked, ("supernode", "superexec"))
    asked.add_argument("--port", type=int, default=9094, help="between its two programs (9094)")
    asked.add_argument(
        "--host",
        default="127.0.0.1",
        help="between them: where the SuperNode listens, or where the SuperExec finds it (127.0.0.1)",
    )
    asked.add_argument("--secret", type=path, help="file of what they both know (in the site's storage)")
    options = asked.parse_args(arguments)
    from fedbrats.engines.superlink.access import check_port, only_one, watching
    from fedbrats.engines.superlink.processes import alone, held, run_all, running_by
    from fedbrats.engines.superlink.programs import Link, environment, site_programs

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        site = load_site_file(options.site)
        link = Link(options.host, options.port, options.secret)
        programs = site_programs(site, link, options.only)
        if options.only == "superexec":  # speaks to the SuperNode only
            with held(pid_file(site)):
                return run_all(alone(programs, options.only), environment(options.site, None, "site"), None)
        if not running_by(pid_file(site)):
            check_port(link)
        if options.only:
            around = environment(options.site, None, "site")
            return run_all(alone(programs, options.only), around, None, watching(site), only_one(site, link))
        logs = pid_file(site).with_name("logs")
        print(f"{site.name}: connecting to {site.server.address}; logs in {logs}", flush=True)
        around = environment(options.site, site.storage, "site")
        return run_all(programs, around, pid_file(site), watching(site), only_one(site, link))
    except (ConfigError, OSError) as error:
        return failed(error)

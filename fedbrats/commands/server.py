"""`server start|stop`: SuperLink and SuperExec of a federation's server, for as long as the command runs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedbrats.commands.words import path
from fedbrats.config.names import shown
from fedbrats.config.server_file import VARIABLE, ServerFile, load_server_file
from fedbrats.config.targets import ConfigError

STUDY_TASK = "fedbrats.commands.study.server_app"
log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run until told to end, or end what runs; 2 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(description="Run the server of a federation, or end what runs.")
    parser.add_argument("word", choices=("start", "stop"))
    only_option(parser, ("superlink", "superexec"))
    server_option(parser)
    options = parser.parse_args(arguments)
    from fedbrats.engines.superlink.processes import alone, run_all, stop
    from fedbrats.engines.superlink.programs import environment, server_address, server_programs

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        server = load_server_file(options.server)
        pids = Path(server.storage) / "running.json"
        if options.word == "stop":
            print("stopped" if stop(pids) else "nothing runs here")
            return 0
        programs = server_programs(server, STUDY_TASK)
        if options.only:
            around = environment(options.server, None, "server")
            meanwhile = watching(server) if options.only == "superexec" else lambda: None
            return run_all(alone(programs, options.only), around, None, meanwhile)
        print(f"SuperLink at {server_address(server)}; logs in {pids.with_name('logs')}", flush=True)
        around = environment(options.server, server.storage, "server")
        return run_all(programs, around, pids, watching(server))
    except (ConfigError, OSError) as error:
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2


def only_option(parser: argparse.ArgumentParser, programs: tuple[str, str]) -> None:
    """Add `--only`, for one of the two programs of a role."""
    parser.add_argument(
        "--only",
        choices=programs,
        help="start: one of the two programs, where each has a container of its own; no log files",
    )


def server_option(parser: argparse.ArgumentParser) -> None:
    """Add `--server`, the server's own configuration."""
    parser.add_argument(
        "--server",
        type=path,
        default=Path(os.environ.get(VARIABLE, "server.yaml")),
        metavar="FILE",
        help="configuration of the server (server.yaml; the environment's FEDBRATS_SERVER)",
    )


def watching(server: ServerFile) -> Callable[[], None]:
    """What a server does while its programs run: see who is let in, and that studies go on."""
    from fedbrats.commands.study.going_on import going_on

    looks = (door(server), going_on(server))

    def look() -> None:
        for one in looks:
            one()

    return look


def door(server: ServerFile) -> Callable[[], None]:
    """Who is let in, kept as the federation's record says: new keys, revoked ones, a SuperLink that began anew."""
    from fedbrats.credentials.folder import Folder
    from fedbrats.engines.superlink.nodes import match_record
    from fedbrats.engines.superlink.programs import server_address

    folder, said = Folder(Path(server.federation)), [""]

    def look() -> None:
        try:
            keys = folder.read().keys_at(datetime.now(UTC))
            refused = match_record(server_address(server), folder.authority, keys).refused
            now = f"a key of {', '.join(refused)} was let go of before: renew it" if refused else ""
        except (ConfigError, RuntimeError, OSError) as error:
            now = str(error)
        if now and now != said[0]:
            log.warning("%s", now)
        said[0] = now

    return look

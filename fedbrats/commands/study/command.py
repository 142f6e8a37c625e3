"""`fedbrats study WORD ...`: a study across hospitals; `start` takes Hydra's overrides as `run` does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from fedbrats.commands.server import server_option
from fedbrats.config.names import shown
from fedbrats.config.server_file import ServerFile, load_server_file
from fedbrats.config.targets import ConfigError

WORDS = {
    "start": "begin a study with the sites of the server file: key=value as for `fedbrats run`",
    "status": "how far it is, who is there, who is waited for",
    "stop": "end its run; what is finished stays",
    "resume": "go on from the last finished round, where it was stopped or has failed",
    "results": "the result table and where the reports are",
}


def main(arguments: list[str]) -> int:
    """Do what the first word says; 2 for what cannot be done, with the reason."""
    parser = argparse.ArgumentParser(
        description="A study across hospitals, at the server.",
        epilog="; ".join(f"{word}: {what}" for word, what in WORDS.items()),
    )
    parser.add_argument("word", choices=tuple(WORDS))
    parser.add_argument("study", help="its name; a folder of the server's storage is called so")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    server_option(parser)
    options = parser.parse_args(arguments)
    from fedbrats.engines.superlink.control import ServerAway

    try:
        server = load_server_file(options.server)
        if options.word == "start":
            return _start(server, options.study, options.overrides)
        if options.overrides:
            raise ConfigError(f"{', '.join(options.overrides)}: only `study start` takes overrides")
        return {"status": _status, "stop": _stop, "resume": _resume, "results": _results}[options.word](
            server, options.study
        )
    except (ConfigError, ServerAway, OSError, ValueError) as error:
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2


def _start(server: ServerFile, name: str, overrides: list[str]) -> int:
    from fedbrats.commands.study.starting import begin, set_off

    folder = begin(server, name, overrides)
    print(f"study {name}: run {set_off(server, folder)}, in {folder}")
    print(f"`fedbrats study status {name}` says how far it is")
    return 0


def _resume(server: ServerFile, name: str) -> int:
    from fedbrats.commands.study.folder import study_folder
    from fedbrats.commands.study.starting import set_off

    print(
        f"study {name}: run {set_off(server, study_folder(server, name))} goes on from the last finished round"
    )
    return 0


def _stop(server: ServerFile, name: str) -> int:
    from fedbrats.commands.study.folder import (
        FINISHED,
        STOPPED,
        read_state,
        read_study,
        study_folder,
        write_state,
    )
    from fedbrats.commands.study.starting import asking
    from fedbrats.engines.superlink.control import stop_run

    folder = study_folder(server, name)
    study = read_study(folder)
    if read_state(folder)["state"] == FINISHED:
        raise ConfigError(f"study {name} has finished: there is nothing to stop")
    with asking(server) as client:
        write_state(folder, STOPPED, "stopped by the operator")  # first: what is to run goes on by itself
        stop_run(client, study.runs[-1])
    print(f"study {name}: stopped; `fedbrats study resume {name}` goes on")
    return 0


def _status(server: ServerFile, name: str) -> int:
    from fedbrats.commands.study.folder import study_folder
    from fedbrats.commands.study.status import status

    for line in status(server, study_folder(server, name)):
        print(shown(line))
    return 0


def _results(server: ServerFile, name: str) -> int:
    from fedbrats.commands.study.folder import read_study, study_folder
    from fedbrats.report.terminal import print_result_table

    folder: Path = study_folder(server, name)
    read_study(folder)
    print_result_table(folder, Console())
    for report in ("report.html", "report_public.html", "cases.csv"):
        if (folder / report).is_file():
            print(folder / report)
    return 0

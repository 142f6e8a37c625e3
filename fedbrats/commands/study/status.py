"""`study status`: how far a study is, who is there, who is waited for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fedbrats.commands.study.folder import FINISHED, RUNNING, read_state, read_study
from fedbrats.commands.study.starting import asking, over
from fedbrats.config.schema import load_config
from fedbrats.config.server_file import ServerFile
from fedbrats.credentials.folder import Folder
from fedbrats.credentials.keys import public_pem
from fedbrats.engines.superlink.control import ServerAway, nodes, run_status
from fedbrats.report.secure import secure_sentence
from fedbrats.runs import rounds
from fedbrats.runs.taking_part import taking_part


def status(server: ServerFile, folder: Path) -> list[str]:
    """Lines that say it.

    Raises:
        ConfigError: no such study.
    """
    study, state = read_study(folder), read_state(folder)
    there: dict[str, str] = {}
    try:
        with asking(server) as client:
            run = run_status(client, study.runs[-1]) if study.runs else ""
            there = _sites(server, client)
    except ServerAway as error:
        run = str(error)
    else:
        if state["state"] == RUNNING and over(run):
            said = (
                f"its run ended ({run or 'the SuperLink began anew'}); the server goes on with it by itself"
            )
            state = {**state, "said": said}
    lines = [f"study {study.name}: {state['state'] or 'not begun'}, {state['said']} ({state['at']})"]
    seen, config = rounds.read_rounds(folder), load_config(folder / "config.yaml")
    done = len(seen) and int(seen["round"].max())
    lines.append(f"rounds: {done} of {config.rounds}")
    lines += filter(None, [secure_sentence(folder, {"privacy": config.privacy}, seen)])
    took_part = {part.site: f", {part.line()}" for part in taking_part(seen)}
    lines += [f"  {site}: {there.get(site, 'unknown')}{took_part.get(site, '')}" for site in study.sites]
    if state["state"] not in (RUNNING, FINISHED):
        lines.append(f"`fedbrats study resume {study.name}` goes on")
    return lines


def _sites(server: ServerFile, client: object) -> dict[str, str]:
    keys = {
        public_pem(public): site
        for site, public in Folder(Path(server.federation)).read().keys_at(datetime.now(UTC))
    }
    found: dict[str, str] = {}
    for node in nodes(client):
        if site := keys.get(node.key):
            seen = f", last seen {node.last_seen}" if node.status != "online" and node.last_seen else ""
            found[site] = found[site] if found.get(site) == "online" else f"{node.status}{seen}"
    return found

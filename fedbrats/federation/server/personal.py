"""What the server says and tests of a personalised federation: what stays, what travels, the model of the unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from fedbrats.arrays import like
from fedbrats.config.schema import Config
from fedbrats.federation.arms import Cohort
from fedbrats.federation.parts import Parts
from fedbrats.federation.server.state import Federation
from fedbrats.federation.server.unseen import mean_of_stays
from fedbrats.federation.wire import to_record
from fedbrats.files import write_json
from fedbrats.personalization.base import local_and_travelling
from fedbrats.personalization.unseen import AVERAGE
from fedbrats.runs import rounds

SHOWN = 4  # names of arrays in a message


def global_record(
    grid: Grid, fed: Federation, parts: Parts, cohort: Cohort, round_: int, sent: dict[str, ArrayRecord]
) -> tuple[bool, dict[str, ArrayRecord]]:
    """The global model as it is tested: with the mean of the arrays that stay, where they may leave once.

    Returns:
        Whether it holds them, and the model by site.

    Raises:
        FederationError: no site sent them.
    """
    if not parts.stays or parts.personalization is None or parts.personalization.unseen != AVERAGE:
        return False, sent
    expected = {name: parts.signature[name] for name in parts.stays}
    rows, mean = mean_of_stays(grid, fed, cohort, round_, expected)
    rounds.append(fed.folder, rows)
    arrays = fed.models[cohort.arm].arrays | mean
    whole = to_record(like({name: arrays[name] for name in parts.signature}, parts.signature))
    return True, dict.fromkeys(sent, whole)


def write_personalization(folder: Path, config: Config, parts: Parts) -> str:
    """Write `personalization.json`: what stays, what travels, how unseen institutions are served.

    Returns:
        The same in a sentence, "" for a run without personalisation.
    """
    personal = parts.personalization
    if personal is None:
        return ""
    stays, travels = local_and_travelling(parts.blank, parts.stays)
    state = "Each site keeps its own state in its own storage; no checkpoint of the server holds it."
    facts: dict[str, Any] = {
        "name": str(config.personalization["_target_"]).rsplit(".", 2)[-2],
        "stays": stays,
        "travels": travels,
    }
    facts |= {"unseen": personal.unseen, "state": state if personal.keeps_state else ""}
    facts["settings"] = {k: v for k, v in config.personalization.items() if not k.startswith("_")}
    write_json(folder / "personalization.json", facts)
    shown = ", ".join(stays[:SHOWN]) + (", ..." if len(stays) > SHOWN else "")
    which = f"{len(stays)} arrays stay at each site ({shown})" if stays else "no array stays at the sites"
    return f"personalization={facts['name']}: {which}, {len(travels)} travel; all are in personalization.json"

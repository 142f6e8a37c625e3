"""The end of a run: every model tested at every institution, and what was kept private or personal written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from hydra.utils import instantiate

from fedbrats import results
from fedbrats.config import Config
from fedbrats.data.partition import Site
from fedbrats.environment import write_json
from fedbrats.federation import checkpoint, exchange, record
from fedbrats.federation.arms import FEDERATED, PERSONAL, Cohort
from fedbrats.federation.fitting import describe_steps, fit_steps_of
from fedbrats.federation.server import Federation
from fedbrats.federation.server_evaluation import score_model
from fedbrats.federation.spending import ask_spent, collect_steps, write_spent
from fedbrats.federation.unseen_sites import AVERAGE, mean_of_stays
from fedbrats.initial import agreed_arrays
from fedbrats.personalization.base import local_and_travelling
from fedbrats.postprocess.steps import build_steps
from fedbrats.privacy.dp_sgd import DpSgd

PERSONAL_SCORES = (
    "Scores of the personal models leave each site exactly; a model that its site tuned without noise tells through "
    "them about its patients."
)
SHOWN = 4  # names of arrays in a message


def test_all(grid: Grid, fed: Federation, config: Config, sites: list[Site]) -> list[dict[str, Any]]:
    """Test the chosen model of every cohort, and the sites' personal models; rows of `cases.csv`.

    Also writes `rounds.csv` further, the tables of the test and `postprocess.json`.
    """
    rows: list[dict[str, Any]] = []
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in results.TABLE_COLUMNS}
    fitted = {}
    for cohort in fed.cohorts:
        model = fed.models[cohort.arm]
        chosen = results.selected_round(model.best_round, fed.finished_round, config.report.select)
        best = chosen == model.best_round and chosen != fed.finished_round
        arrays = checkpoint.load_best(fed.folder / "checkpoints", cohort.arm) if best else model.arrays
        sent, steps = exchange.to_record(arrays), build_steps(config.postprocess)
        fits, parameters, by_site = fit_steps_of(grid, fed, cohort, sent, chosen, steps)
        fitted[cohort.arm] = describe_steps(steps, parameters, by_site)
        record.append(fed.folder / "rounds.csv", fits)
        whole, tested = False, [(cohort, sent)]
        if cohort.arm == FEDERATED and config.personalization:
            whole, sent_global = _global_record(grid, fed, config, cohort, chosen, sent)
            tested = [(cohort, sent_global), (Cohort(PERSONAL, cohort.sites), sent)]
        for asked, model_record in tested:
            is_whole = whole and asked is cohort
            more, replies = score_model(grid, fed, asked, model_record, chosen, parameters, whole=is_whole)
            record.append(fed.folder / "rounds.csv", more)
            of = [s for s in sites if asked.arm != PERSONAL or s.name in cohort.sites]
            rows += results.case_rows(asked.arm, of, replies, config.metrics.convention, fed.regions)
            for name, found in results.test_tables(asked.arm, of, replies).items():
                tables[name] += found
    for name, found in tables.items():
        results.write_table(fed.folder, name, found)
    if config.postprocess.steps:
        write_json(fed.folder / "postprocess.json", fitted)
    return rows


def _global_record(
    grid: Grid, fed: Federation, config: Config, cohort: Cohort, round_: int, sent: Any
) -> tuple[bool, Any]:
    """The global model as it is tested: with the mean of the arrays that stay, where they may leave once."""
    personal = instantiate(config.personalization)
    signature, stays = agreed_arrays(config)
    if not stays or personal.unseen != AVERAGE:
        return False, sent
    expected = {name: signature[name] for name in stays}
    rows, mean = mean_of_stays(grid, fed, cohort, round_, expected)
    record.append(fed.folder / "rounds.csv", rows)
    arrays = fed.models[cohort.arm].arrays | mean
    return True, exchange.to_record({name: arrays[name] for name in signature})


def write_personalization(folder: Path, config: Config) -> str:
    """Write `personalization.json`: what stays, what travels, how unseen institutions are served.

    Returns:
        The same in a sentence, "" for a run without personalisation.
    """
    if not config.personalization:
        return ""
    import torch

    from fedbrats.models.build import build_network, patch_of

    personal = instantiate(config.personalization)
    with torch.device("meta"):
        network = build_network(config.model)
    stays, travels = local_and_travelling(network, personal.stays(network, patch_of(config)))
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


def write_privacy(grid: Grid, fed: Federation, config: Config) -> None:
    """Ask what was spent and write `privacy.json` with its tables; nothing for a run without privacy."""
    if fed.protection is not None:
        fed.protection.write(fed)
    settings = instantiate(config.privacy) if config.privacy else None
    cohort = next((c for c in fed.cohorts if c.arm == FEDERATED), None)
    if not isinstance(settings, DpSgd) or cohort is None:
        return
    found, failed = ask_spent(grid, fed, cohort)
    personal = PERSONAL_SCORES if config.personalization else ""
    write_spent(fed.folder, settings, found, failed, fed.stopped, personal)
    collect_steps(fed.folder, cohort.sites)

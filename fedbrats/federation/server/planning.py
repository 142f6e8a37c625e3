"""The network planned from what the sites tell, before the first round, and in a deployment told to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.config.schema import FEDERATED, Config
from fedbrats.data.fingerprint import Fingerprint, fingerprint_of, read_fingerprint
from fedbrats.data.survey import BOX
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.asking import Request, replies_in_order
from fedbrats.federation.server.state import Federation, FederationError, Member, Observer
from fedbrats.federation.server.survey import ask_survey
from fedbrats.files import read_json
from fedbrats.models.planned import digest_of, make_plan, with_plan, write_plan
from fedbrats.models.planning import Plan
from fedbrats.runs.case_tables import PLAN, SURVEY

NO_PLAN = "the network cannot be planned"


def planned_by_sites(
    grid: Grid,
    folder: Path,
    config: Config,
    members: Mapping[str, Member],
    observer: Observer,
    say: Callable[[str], None],
) -> Config:
    """`config`, which awaits its plan, with the one that the answers of `members` give; `plan.json` says why.

    Raises:
        ConfigError: no plan fits `model.plan_memory`.
        FederationError: the sites have told too little.
    """
    parts = parts_of(config)
    fed = Federation(
        algorithm=parts.algorithm,
        cohorts=[Cohort(FEDERATED, tuple(members), parts.algorithm)],
        models={},
        folder=folder,
        rounds=config.rounds,
        observer=observer,
        members=dict(members),
    )
    ask_survey(grid, fed, config.survey, planned=True)
    found = _told(folder, parts.algorithm, config)
    made = make_plan(config, found)
    write_plan(folder, made, found, config)
    for reason in made.reasons:
        say(f"plan: {reason}")
    return with_plan(config, made)


def _told(folder: Path, algorithm: FedAvg, config: Config) -> Fingerprint:
    told = read_json(folder / SURVEY)["sites"]
    for site, counts in told.items():
        if sum(counts.get(BOX, ())) > algorithm.max_cases:
            raise FederationError(
                f"{NO_PLAN}: site {site} tells of more patients than strategy.max_cases={algorithm.max_cases}; with so "
                "many it would decide every median; raise it if that is true."
            )
    try:
        return fingerprint_of(told)
    except (ValueError, KeyError) as error:
        raise FederationError(
            f"{NO_PLAN}: {error}; lower survey.least={config.survey.least} (a site's own policy.least_cases may ask "
            "for more), or name a plan that was made elsewhere: model.plan=<file>."
        ) from error


def tell_plan(grid: Grid, folder: Path, made: Plan, nodes: Mapping[int, str], timeout: float) -> None:
    """Send every site what `made` was planned from, and wait until each has planned the same; may be called again.

    Args:
        grid: that reaches the sites.
        folder: of the study, with its `plan.json`.
        made: the plan.
        nodes: of the sites, with their names.
        timeout: seconds for an answer.

    Raises:
        FederationError: a site refuses the plan, or has made another.
    """
    found = read_fingerprint_of(folder)
    content = RecordDict({"plan": ConfigRecord({"fingerprint": found.text()})})
    members = {site: Member(node, 0, 0, 0) for node, site in nodes.items()}
    requests = [Request(Cohort("plan", ()), site, content) for site in sorted(members)]
    for request, reply in replies_in_order(grid, requests, members, questions.PLAN, "plan", timeout):
        _check_taken(request.site, reply, digest_of(made))


def read_fingerprint_of(folder: Path) -> Fingerprint:
    """The fingerprint in the `plan.json` of `folder`."""
    found: Any = read_json(folder / PLAN)["fingerprint"]
    return read_fingerprint(Fingerprint(**found).text())


def _check_taken(site: str, reply: Message | None, sha256: str) -> None:
    if reply is None or reply.has_error():
        reason = "no reply" if reply is None else reply.error.reason
        raise FederationError(f"site {site} does not take the plan of the network: {reason}")
    facts: Any = reply.content.get("facts", {})
    if facts.get("site") != site or facts.get("sha256") != sha256:
        raise FederationError(f"site {site} has made another plan of the network than the server")

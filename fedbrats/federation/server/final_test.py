"""The end of a run: every model tested at every institution, and what was spent written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedbrats.algorithms.base import Memory
from fedbrats.config.schema import FEDERATED, FLOOR, Config
from fedbrats.data.partition import Site
from fedbrats.federation.arms import PERSONAL, TRIGGERED, Cohort
from fedbrats.federation.parts import Parts
from fedbrats.federation.server import results
from fedbrats.federation.server.asking import records_given
from fedbrats.federation.server.evaluation import score_floor, score_model
from fedbrats.federation.server.fitting import describe_steps, fit_steps_of
from fedbrats.federation.server.personal import global_record
from fedbrats.federation.server.replies import EvaluateReply
from fedbrats.federation.server.spending import ask_spent, write_spent
from fedbrats.federation.server.state import Federation
from fedbrats.files import write_json
from fedbrats.inference.flair_threshold import REGIONS
from fedbrats.metrics.table import Facts, facts_of
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs import classified, rounds
from fedbrats.runs.case_tables import AGGREGATES, GROUPS, TABLES, WITHHELD, write_table
from fedbrats.runs.checkpoint import load_best
from fedbrats.runs.table import Table
from fedbrats.scenario.poison import BACKDOOR

PERSONAL_SCORES = (
    "Scores of the personal models leave each site exactly; a model that its site tuned without noise tells through "
    "them about its patients."
)


@dataclass
class _Found:
    """What the test has found: rows of `cases.csv` and of the other tables, and what sites keep at home."""

    metrics: dict[str, Facts]
    withheld: dict[str, list[str]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    aggregates: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def add(
        self, arm: str, of: list[Site], replies: Mapping[str, EvaluateReply], regions: Sequence[str]
    ) -> None:
        """The scores of one arm at the sites `of`."""
        scored = results.case_rows(arm, of, replies, self.metrics, regions)
        self.aggregates += results.aggregate_rows(arm, replies, scored, tuple(self.metrics))
        self.rows += scored
        self.keep(replies)

    def add_labels(self, arm: str, of: list[Site], replies: Mapping[str, EvaluateReply]) -> None:
        """The scores of one arm that classifies, at the sites `of`."""
        self.rows += results.classified_rows(arm, of, replies)
        self.aggregates += results.told_rows(arm, replies)
        self.keep(replies)

    def keep(self, replies: Mapping[str, EvaluateReply]) -> None:
        """What sites have said that they keep."""
        for site, reply in replies.items():
            self.withheld[site] = list(dict.fromkeys([*self.withheld.get(site, []), *reply.withheld]))

    def add_tables(self, arm: str, of: list[Site], replies: Mapping[str, EvaluateReply]) -> None:
        """What the sites say of one arm besides."""
        for name, found in results.test_tables(arm, of, replies).items():
            self.tables[name] += found

    def write(self, folder: Path, aggregates: Table) -> None:
        """All but the rows of `cases.csv`; what an earlier test has left of `aggregates` goes."""
        (folder / aggregates.name).unlink(missing_ok=True)
        for name, found in self.tables.items():
            write_table(folder, TABLES[name], found)
        write_table(folder, aggregates, self.aggregates)
        if kept := {site: said for site, said in sorted(self.withheld.items()) if said}:
            write_json(folder / WITHHELD, kept)


def test_all(
    grid: Grid, fed: Federation, config: Config, parts: Parts, sites: list[Site]
) -> list[dict[str, Any]]:
    """Test the chosen model of every cohort, the sites' personal models, and the floor; rows of `cases.csv`.

    Also writes `rounds.csv` further, the tables of the test, `postprocess.json`, and what sites keep at home.
    """
    metrics = facts_of(parts.metrics, config.metrics.convention)
    found, fitted = _Found(metrics, withheld_at_join(fed)), dict[str, Any]()
    if config.report.floor is not None and not parts.classifies:
        more, replies = score_floor(grid, fed, fed.finished_round)
        rounds.append(fed.folder, more)
        found.add(FLOOR, sites, replies, REGIONS)
    for cohort in fed.cohorts:
        model = fed.models[cohort.arm]
        chosen = results.selected_round(model.best_round, fed.finished_round, config.report.select)
        best = chosen == model.best_round and chosen != fed.finished_round
        arrays, memory = model.arrays, model.memory
        if best:
            arrays, memory = load_best(fed.folder / "checkpoints", cohort.arm)
        sent, steps = records_given(cohort, arrays, memory, {*fed.members, *cohort.sites}), parts.steps
        if cohort.algorithm.versions:
            write_groups(fed, cohort, memory)
        fits, parameters, by_site = fit_steps_of(grid, fed, cohort, sent, chosen, steps)
        fitted[cohort.arm] = describe_steps(steps, parameters, by_site)
        rounds.append(fed.folder, fits)
        whole, tested = False, [(cohort, sent)]
        if cohort.arm == FEDERATED and parts.personalization:
            whole, sent_global = global_record(grid, fed, parts, cohort, chosen, sent)
            tested = [(cohort, sent_global), (Cohort(PERSONAL, cohort.sites), sent)]
        if cohort.arm == FEDERATED and BACKDOOR in config.scenario.poisoned.values():
            tested.append((Cohort(TRIGGERED, cohort.sites), tested[0][1]))
        for asked, model_record in tested:
            is_whole = whole and asked.arm != PERSONAL
            more, replies = score_model(grid, fed, asked, model_record, chosen, parameters, whole=is_whole)
            rounds.append(fed.folder, more)
            of = [s for s in sites if asked.arm != PERSONAL or s.name in cohort.sites]
            if parts.classifies:
                found.add_labels(asked.arm, of, replies)
                continue
            found.add(asked.arm, of, replies, fed.regions)
            found.add_tables(asked.arm, of, replies)
    found.write(fed.folder, classified.AGGREGATES if parts.classifies else AGGREGATES)
    if parts.steps:
        write_json(fed.folder / "postprocess.json", fitted)
    return found.rows


def write_groups(fed: Federation, cohort: Cohort, memory: Memory) -> None:
    """Write `groups.json`: the sites that have shared a model, by what the algorithm calls it."""
    groups: dict[str, list[str]] = {}
    for site in cohort.sites:
        groups.setdefault(cohort.algorithm.version(memory, site), []).append(site)
    write_json(fed.folder / GROUPS, groups)


def withheld_at_join(fed: Federation) -> dict[str, list[str]]:
    """What the sites said, when they joined, that they keep at home."""
    return {site: [member.withheld] for site, member in fed.members.items() if member.withheld}


def write_privacy(grid: Grid, fed: Federation, parts: Parts) -> None:
    """Ask what was spent and write `privacy.json` with its tables; nothing for a run without privacy."""
    if fed.protection is not None:
        fed.protection.write(fed)
    settings = parts.privacy
    cohort = next((c for c in fed.cohorts if c.arm == FEDERATED), None)
    if not isinstance(settings, DpSgd) or cohort is None:
        return
    found, failed = ask_spent(grid, fed, cohort)
    personal = PERSONAL_SCORES if parts.personalization else ""
    write_spent(fed.folder, settings, found, failed, fed.stopped, personal)

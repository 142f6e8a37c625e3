"""The steps that the display of a run can see: those of sites on this machine, and how many there will be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbrats.commands.run.phase import Counted
from fedbrats.config.schema import FEDERATED, POOLED_ROW, Config
from fedbrats.data.prepare import Prepared
from fedbrats.federation import arms
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.state import Federation
from fedbrats.privacy.dp_sgd import DpSgd, private_steps
from fedbrats.training.amount import pooled_steps, steps_per_round
from fedbrats.training.steps import StepCounts


@contextmanager
def step_counts(config: Config, folder: Path, sites: list[str]) -> Iterator[StepCounts | None]:
    """Where the `sites` count their steps; None where they may be on other machines, which then tell no such thing.

    It is a file in the run folder for as long as the run goes; what a killed run has left, the resumed one takes away.
    """
    if config.runtime.engine != "local":
        yield None
        return
    file = folder / "steps"
    try:
        yield StepCounts.create(file, sites)
    finally:
        file.unlink(missing_ok=True)


def counted(counts: StepCounts | None, config: Config, prepared: Prepared, fed: Federation) -> Counted | None:
    """The counts with the steps that every site will take in a round, for each of its arms."""
    if counts is None:
        return None
    sites = {site.name: site for site in prepared.sites if not site.holdout}
    steps = {name: steps_per_round(name, len(site.train), config.train) for name, site in sites.items()}
    members = {name: len(site.train) for name, site in sites.items()}
    steps[arms.POOLED_SITE] = pooled_steps(members, config.train)
    expected = {(cohort.arm, site): steps[site] for cohort in fed.cohorts for site in cohort.sites}
    if (POOLED_ROW, arms.POOLED_SITE) in expected:
        row = pooled_steps(members, config.train, in_a_row=True)
        expected[POOLED_ROW, arms.POOLED_SITE] = row
    settings = parts_of(config).privacy
    if isinstance(settings, DpSgd):
        for name, site in sites.items():
            patients = len({prepared.patients.of[case] for case in site.train})
            expected[FEDERATED, name] = private_steps(name, patients, config.train, settings)
    return Counted(counts, expected)

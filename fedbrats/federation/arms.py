"""The arms of a run: federated training and the two baselines it is measured against.

Every arm is made of cohorts, groups of sites that share one model and train it by the same round loop:

- `federated`: one cohort of all training sites, aggregated by the configured algorithm;
- `pooled`: one cohort of one imaginary site that holds the union of all training cases and takes as many optimiser
  steps per round as the sites take together, or as one of them takes (`train.pooled_steps`); with `both` there is
  `pooled_in_a_row` beside it, which takes as many as one of them;
- `local`: one cohort per site, named `local:<site>`.

Beside them stands `floor`, which is no arm to ask for: the whole tumour by a threshold on FLAIR (`report.floor`),
scored at the sites on the same test cases.

A personalised federation is tested twice: `federated` is then the global model, `personal` what each training
institution has made of it for itself (`fedbrats/personalization`).

The configured algorithm belongs to the federation. A cohort of one site is plain training: FedAvg of one reply is that
reply. Only the federated arm exchanges anything, so only there bytes are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.config.schema import FEDERATED, LOCAL, POOLED, POOLED_ROW
from fedbrats.data.partition import Site

PERSONAL = "personal"  # the sites' own models in a personalised federation; tested, never trained by itself
TRIGGERED = "triggered"  # the federated model on test cases with the trigger of `scenario.poisoned`
EXCHANGED = (FEDERATED, PERSONAL, TRIGGERED)
POOLED_SITE = POOLED


@dataclass(frozen=True)
class Cohort:
    """Sites that train one model together."""

    arm: str
    sites: tuple[str, ...]
    algorithm: FedAvg = field(default_factory=FedAvg)

    @property
    def federated(self) -> bool:
        """Whether arrays really travel."""
        return self.arm in EXCHANGED


def cohorts(
    arms: Sequence[str], training_sites: Sequence[str], algorithm: FedAvg, pooled_twice: bool = False
) -> list[Cohort]:
    """The cohorts of the named arms; the imaginary pooled site comes last, so that no site waits behind it.

    `algorithm` is that of the federation; `pooled_twice`: whether it trains a second model, with the steps of one site.
    """
    found: list[Cohort] = []
    if FEDERATED in arms:
        found.append(Cohort(FEDERATED, tuple(training_sites), algorithm))
    if LOCAL in arms:
        found += [Cohort(f"{LOCAL}:{site}", (site,)) for site in training_sites]
    if POOLED in arms:
        found += [Cohort(arm, (POOLED_SITE,)) for arm in (POOLED, POOLED_ROW)[: 1 + pooled_twice]]
    return found


def pooled_site(sites: Sequence[Site]) -> Site:
    """The imaginary site that trains and validates on every training site's cases; it tests on none of its own."""
    members = [s for s in sites if not s.holdout]
    return Site(
        name=POOLED_SITE,
        holdout=False,
        train=tuple(case for s in members for case in s.train),
        val=tuple(case for s in members for case in s.val),
        test=(),
    )


def algorithm_of(arm: str, configured: FedAvg) -> FedAvg:
    """The algorithm a site runs in `arm`: the configured one in the federation, plain training elsewhere."""
    return configured if arm in EXCHANGED else FedAvg()

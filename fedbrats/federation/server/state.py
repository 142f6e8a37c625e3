"""What the server holds during a run, and whom it tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.arrays import Signature, signature
from fedbrats.config.secure import SecureAggregation
from fedbrats.federation.arms import Cohort
from fedbrats.metrics.table import CONVENTIONS, METRICS, Facts, facts_of
from fedbrats.runs.checkpoint import Model
from fedbrats.runs.rounds import Row
from fedbrats.scenario.participation import Asked, Participation
from fedbrats.tasks.segmentation import REGIONS, SEGMENTATION
from fedbrats.tasks.task import Task
from fedbrats.training.schedule import stopped_early


class FederationError(RuntimeError):
    """A federation that cannot start or go on; the message says why."""


@dataclass(frozen=True)
class Member:
    """A site as it registered itself: how to reach it and how many cases it holds."""

    node: int
    train: int
    val: int
    test: int
    withheld: str = field(default="", kw_only=True)  # what it keeps at home by its own policy, in its words


class ServerPrivacy(Protocol):
    """Client-level privacy at the server (`central_privacy.py`)."""

    def begin(self, fed: Federation, round_: int) -> None:
        """Before a round: stop all sites if it would spend more than the budget."""

    def collect(self, arrays: Mapping[str, Tensor]) -> Any:
        """What collects the replies to the model `arrays`."""

    def release(self, found: Any, round_: int) -> None:
        """Account for a release, then add its noise to what was collected."""

    def write(self, fed: Federation) -> None:
        """Write `privacy.json` at the end."""


class Observer(Protocol):
    """Where progress is shown."""

    def phase_started(self, round_: int, phase: str, asked: Sequence[tuple[str, str]]) -> None:
        """A phase of `round_` begins; `asked`: arm and site of every reply that it waits for."""

    def arrived(self, asked: Collection[tuple[str, str]]) -> None:
        """While a reply is awaited: of those asked, whose replies are there and will be read in their turn."""

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None:
        """One site has answered, or failed to."""

    def round_finished(self, round_: int, rows: list[Row]) -> None:
        """`rows` are those of `rounds.csv`."""


@dataclass
class Federation:
    """Everything the server holds during a run."""

    algorithm: FedAvg  # of the federation
    cohorts: list[Cohort]
    models: dict[str, Model]  # by arm
    folder: Path  # run folder
    rounds: int
    observer: Observer
    task: Task = SEGMENTATION
    regions: tuple[str, ...] = REGIONS  # that the network predicts
    # Of the test at the end.
    metrics: dict[str, Facts] = field(default_factory=lambda: facts_of(METRICS, CONVENTIONS[0]))
    trainable: frozenset[str] = frozenset()  # the arrays that are trained; others are running statistics
    evaluate_every: int = 1
    one_exchange: bool = False  # validation travels with the training of the next round
    checkpoint_every: int = 1
    keep_checkpoints: int = 1
    lr_factor: Callable[[list[float]], float] = field(default=lambda losses: 1.0)  # of the validation losses
    stop_patience: int | None = None  # `train.stop_patience`
    participation: Participation | None = (
        None  # who takes part in which round of the federated arm; None: everybody
    )
    hours: float = 0.0  # of the simulated clock so far
    horizon: float = math.inf  # hours after which the federated arm ends
    protection: ServerPrivacy | None = None  # client-level privacy, applied to the federated arm
    secure: SecureAggregation | None = None  # of the federated arm; the server sees no single reply
    losses_stay: bool = False  # patient-level privacy: the federated arm's training losses never leave a site
    validation_stays: bool = False  # and neither do its validation scores
    finished_round: int = 0
    checkpointed: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)  # sites that reached their privacy budget, and why

    def expected(self, arm: str) -> Signature:
        """The arrays that every reply in `arm` must hold."""
        return signature(self.models[arm].arrays)

    def given(self, cohort: Cohort, site: str) -> Arrays:
        """The model that a site of `cohort` is sent."""
        model, algorithm = self.models[cohort.arm], cohort.algorithm
        return algorithm.given(model.arrays, model.memory, algorithm.version(model.memory, site))

    def group(self, cohort: Cohort) -> Group:
        """What the algorithm of `cohort` knows of it."""
        trained = self.trainable & self.models[cohort.arm].arrays.keys()
        return Group(len(cohort.sites), trained, tuple(cohort.sites))

    @property
    def over(self) -> bool:
        """Whether the simulated clock has run out."""
        return self.hours >= self.horizon

    def active(self) -> list[Cohort]:
        """The cohorts that still train; the others have stopped early, or their time is over."""
        left = [c for c in self.cohorts if not (c.federated and self.over)]
        return [c for c in left if not stopped_early(self.models[c.arm].val_losses, self.stop_patience)]

    def training(self, cohort: Cohort) -> list[str]:
        """The sites of `cohort` that have something to train on and have not stopped."""
        left = [site for site in cohort.sites if site not in self.members or self.members[site].train]
        return [site for site in left if not (cohort.federated and site in self.stopped)]

    def asked(self, cohort: Cohort, round_: int) -> Asked:
        """Who of them is asked in `round_`, and what becomes of it."""
        memory = self.models[cohort.arm].memory
        sites = cohort.algorithm.asked(self.training(cohort), round_, self.rounds, memory)
        if self.participation is None or not cohort.federated:
            return Asked(tuple(sites))
        return self.participation.of(sites, round_)

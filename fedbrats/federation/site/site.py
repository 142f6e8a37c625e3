"""One site as its process sees it: its name, its cases, its own storage, its budget."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import replace
from functools import cached_property

from flwr.app import RecordDict
from torch import Tensor

from fedbrats.config.schema import FEDERATED, POOLED_ROW, Config
from fedbrats.data.cache import CachedCase
from fedbrats.data.intensity import Normaliser, normaliser
from fedbrats.federation import arms
from fedbrats.federation.parts import Parts
from fedbrats.federation.site import state
from fedbrats.federation.site.budget import Budget
from fedbrats.federation.site.warm import Warm
from fedbrats.files import read_json
from fedbrats.inference.members import Member
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs.site_cases import SPLITS, SiteCases, pseudonym, read_site_cases, site_folder
from fedbrats.scenario.faults import LabelFault, label_fault, seen_by, turned_axes
from fedbrats.training.amount import pooled_steps, steps_per_round

ALGORITHM = "algorithm"  # folder of what the federated algorithm keeps at the site
TRANSFER = "transfer"  # folder of what the rounding of what is sent has left
STAYS, WORK = "stays/", "work/"  # parts of a personal state: arrays that stay, what the method remembers

# A path, quoted or not; a following word that holds a slash belongs to it (folders with blanks in their names).
PATH = re.compile(
    r"(?<=')/[^'\n]*(?=')|(?<![\w.])(?:[A-Za-z]:\\|/)[^\s'\":;,()]*(?: [^\s'\":;,()]*[\\/][^\s'\":;,()]*)*"
)


class Site:
    """A site of the run that a process serves; all sites of the process share its `Warm`."""

    def __init__(self, name: str, warm: Warm) -> None:
        """`name` is the institution, or the imaginary pooled site."""
        self.name, self.warm = name, warm
        self.storage = site_folder(warm.folder, name)
        self.context: RecordDict | None = None  # what Flower keeps for the site within a run

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.warm.config

    @property
    def parts(self) -> Parts:
        """Of the configuration."""
        return self.warm.parts

    @cached_property
    def cases(self) -> SiteCases:
        """The site's cases, opened once. Raises FileNotFoundError: it has no case list."""
        return read_site_cases(self.warm.folder, self.name)

    @cached_property
    def normalise(self) -> Normaliser | None:
        """How its intensities are brought into line; a histogram reference is made of its own cases only."""
        scenario = self.config.scenario
        kind = scenario.normalise.get(self.name, self.parts.rules.normalise)
        return seen_by(scenario, self.name, normaliser(kind, self._known_cases))

    @cached_property
    def wrong(self) -> LabelFault | None:
        """What a scenario has wrong with the labels that the site trains on."""
        return label_fault(self.config.scenario, self.name)

    @property
    def turned(self) -> list[int]:
        """Axes of its volumes, counted from behind, that a scenario has run the other way."""
        return turned_axes(self.config.scenario, self.name)

    def localiser(self) -> Member:
        """The model that finds the tumour first, for the intensities of the site. Raises ConfigError: none there."""
        member = self.warm.localiser()
        return replace(member, normalise=normaliser(member.rules.normalise, self._known_cases))

    @property
    def _known_cases(self) -> tuple[CachedCase, ...]:
        return self.cases.train or self.cases.val or self.cases.test

    @cached_property
    def budget(self) -> Budget:
        """What the site may spend; for a run with patient-level privacy only."""
        assert isinstance(self.parts.privacy, DpSgd)
        return Budget(
            site=self.name,
            settings=self.parts.privacy.of(self.name),
            storage=self.storage / "privacy",
            patients=len(self.cases.by_patient("train")),
            train=self.config.train,
            rounds=self.config.rounds,
            roles={
                hashlib.sha256(f"{self.name}\n{self.cases.patients[case.name]}".encode()).hexdigest()[
                    :16
                ]: split
                for split in SPLITS
                for case in getattr(self.cases, split)
            },
        )

    def steps(self, arm: str = "") -> int:
        """Optimiser steps of a round in `arm`; those of the pooled site come from all training sites."""
        if self.name != arms.POOLED_SITE:
            return steps_per_round(self.name, len(self.cases.train), self.config.train)
        members = read_json(self.storage / "members.json")
        return pooled_steps(members, self.config.train, in_a_row=arm == POOLED_ROW)

    def protects(self, arm: str) -> bool:
        """Whether patient-level privacy holds for what leaves in `arm`: all but the baselines of a simulation.

        A personal model is the site's own and never sent.
        """
        private = isinstance(self.parts.privacy, DpSgd)
        return private and arm != arms.PERSONAL and arm not in self.warm.baseline_arms

    def masks(self, arm: str) -> bool:
        """Whether the arrays that leave in `arm` are masked (secure aggregation)."""
        return self.parts.secure is not None and arm == FEDERATED

    def stays_in(self, arm: str) -> tuple[str, ...]:
        """The arrays that stay at the site when it works in `arm`."""
        return self.parts.stays if arm in arms.EXCHANGED else ()

    def load(
        self, content: RecordDict, arm: str, before_round: int, *, whole: bool = False, change: bool = False
    ) -> None:
        """Load the model of a message, with the arrays that stay as the site had them before `before_round`.

        A site that never trained has the initial ones.

        Args:
            content: of the message.
            arm: in which the site works.
            before_round: 1-based.
            whole: the message holds the arrays that stay as well (their mean over the sites).
            change: whether the caller will change the network.

        Raises:
            BadArrays: the message does not hold the agreed arrays.
        """
        stays = () if whole else self.stays_in(arm)
        own = self.own_arrays(before_round) if stays else {}
        owner = (self.name, before_round) if stays else None
        self.warm.load(content["arrays"], own, owner, change=change)

    def own_arrays(self, before_round: int) -> dict[str, Tensor]:
        """The arrays that stay, as the site had them before `before_round`."""
        known = self.state_before(before_round)
        return {name: known.get(STAYS + name, self.warm.initial[name]) for name in self.parts.stays}

    def state_before(self, round_: int) -> dict[str, Tensor]:
        """What personalisation left at the site before `round_`, from Flower's context or its storage; {} at first."""
        if not self.parts.personalization or not self.parts.personalization.keeps_state:
            return {}
        return state.recall(self.storage / "state" / arms.PERSONAL, round_, self.context)

    def kept_before(self, round_: int) -> dict[str, Tensor]:
        """What the federated algorithm kept at the site before `round_`; {} at first."""
        if not self.parts.algorithm.keeps_state:
            return {}
        return state.recall(self.storage / "state" / ALGORITHM, round_, self.context)

    def residual_before(self, round_: int) -> dict[str, Tensor]:
        """What the rounding of what was sent had left at the site before `round_` (`transfer.py`); {} at first."""
        return state.recall(self.storage / "state" / TRANSFER, round_, self.context)

    def remember(self, folder: str, round_: int, tensors: dict[str, Tensor], keep_from: int) -> None:
        """Keep what `round_` leaves in `folder` (`arms.PERSONAL`, ALGORITHM, TRANSFER) of the site's own storage."""
        state.remember(self.storage / "state" / folder, round_, tensors, self.context, keep_from=keep_from)

    def scrub(self, text: str) -> str:
        """`text` without names of cases and without paths; a test case gets the pseudonym of its rows."""
        with contextlib.suppress(Exception):  # the case list itself may be what is broken
            cases = self.cases
            names = {c.name: i for i, c in enumerate((*cases.test, *cases.train, *cases.val))}
            for name in sorted(names, key=len, reverse=True):  # a name may begin another one
                text = text.replace(name, pseudonym(self.name, names[name]))
        for folder in (self.warm.folder, self.config.data.cache, self.config.data.root):
            text = text.replace(str(folder), "/") if folder else text
        return PATH.sub("<path>", text)

"""What one process keeps warm for the sites it serves: configuration, network, cases, and how a model gets into it."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, RecordDict
from hydra.utils import instantiate
from torch import Tensor

from fedbrats.config import load_config
from fedbrats.data.intensity import Normaliser, normaliser
from fedbrats.federation import arms, exchange, site_state
from fedbrats.federation.site_cases import SiteCases, pseudonym, read_site_cases, site_folder
from fedbrats.federation.site_state import STAYS, WORK
from fedbrats.federation.site_work import SiteWork
from fedbrats.inference.members import Member, load_localiser
from fedbrats.initial import initial_arrays
from fedbrats.losses.ramp import set_round
from fedbrats.models.build import build_network, channels_last, input_rules, patch_of, regions_of
from fedbrats.personalization.base import Personalization
from fedbrats.postprocess.steps import build_steps
from fedbrats.training import steps_per_round

# A path, quoted or not; a following word that holds a slash belongs to it (folders with blanks in their names).
PATH = re.compile(
    r"(?<=')/[^'\n]*(?=')|(?<![\w.])(?:[A-Za-z]:\\|/)[^\s'\":;,()]*(?: [^\s'\":;,()]*[\\/][^\s'\":;,()]*)*"
)


class SiteRuntime:
    """What one process keeps warm for all sites it serves: the configuration, one network, the opened cases."""

    def __init__(self, run_folder: Path) -> None:
        """Read the run's configuration; network and cases follow when first needed."""
        self.folder = run_folder
        self.config = load_config(run_folder / "config.yaml")
        self.algorithm = instantiate(self.config.strategy)
        self.loss = instantiate(self.config.loss)
        self.privacy = instantiate(self.config.privacy) if self.config.privacy else None
        personal = self.config.personalization
        self.personalization: Personalization | None = instantiate(personal) if personal else None
        self.rules = input_rules(self.config.model)
        self.steps_after = build_steps(self.config.postprocess)
        self.device = pick_device(self.config.runtime.device)
        self.amp = self.device.type == "cuda" and self.config.runtime.amp
        self.contexts: dict[str, RecordDict] = {}  # what Flower keeps for each site within a run
        self._cases: dict[str, SiteCases] = {}
        self._normalisers: dict[str, Normaliser | None] = {}
        self._loaded: tuple[ArrayRecord, tuple[str, int] | None] | None = None
        self._localiser: Member | None = None

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network, on its device; which weights it holds is the business of `load`."""
        network = channels_last(build_network(self.config.model).to(self.device))
        self._counters = {
            name: buffer.clone() for name, buffer in network.named_buffers() if not buffer.is_floating_point()
        }
        personal = self.personalization
        self.stays = personal.stays(network, patch_of(self.config)) if personal else ()
        self.signature = exchange.signature(exchange.travelling(network))
        return network

    @cached_property
    def initial(self) -> dict[str, Tensor]:
        """The arrays that every site starts from."""
        return initial_arrays(self.config)

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network predicts."""
        return regions_of(self.config)

    def cases(self, site: str) -> SiteCases:
        """The cases of `site`, opened once."""
        if site not in self._cases:
            self._cases[site] = read_site_cases(self.folder, site)
        return self._cases[site]

    def normalise(self, site: str) -> Normaliser | None:
        """How the intensities of `site` are brought into line; a histogram reference is made of its own cases only."""
        if site not in self._normalisers:
            cases = self.cases(site)
            own = cases.train or cases.val or cases.test
            self._normalisers[site] = normaliser(self.rules.normalise, own)
        return self._normalisers[site]

    def localiser(self, site: str) -> Member:
        """The model that finds the tumour first (`inference.locate`), for the intensities of `site`."""
        if self._localiser is None:
            self._localiser = load_localiser(str(self.config.inference.locate), self.device)
        member, cases = self._localiser, self.cases(site)
        own = cases.train or cases.val or cases.test
        return replace(member, normalise=normaliser(member.rules.normalise, own))

    def stays_in(self, arm: str) -> tuple[str, ...]:
        """The arrays that stay at the site when it works in `arm`."""
        _ = self.network
        return self.stays if arm in arms.EXCHANGED else ()

    def state_before(self, site: str, round_: int) -> dict[str, Tensor]:
        """What `site` remembered for itself before `round_`, from Flower's context or its own storage; {} at first."""
        if not self.personalization or not self.personalization.keeps_state:
            return {}
        return site_state.recall(self._personal_folder(site), round_, self.contexts.get(site))

    def _personal_folder(self, site: str) -> Path:
        return site_folder(self.folder, site) / "state" / arms.PERSONAL

    def load(
        self, record: ArrayRecord, site: str = "", arm: str = "", before_round: int = 0, whole: bool = False
    ) -> None:
        """Put a received model into the network, and into the arrays that stay what `site` had before `before_round`.

        Counters, which do not travel, start again from zero. `whole`: the record holds the arrays that stay as well
        (their mean over the sites). A site that never trained has the initial ones.
        """
        network = self.network
        stays = () if whole else self.stays_in(arm)
        key = (record, (site, before_round) if stays else None)
        if self._loaded is not None and self._loaded[0] is record and self._loaded[1] == key[1]:
            return
        expected = {name: form for name, form in self.signature.items() if name not in stays}
        arrays = exchange.from_record(record, expected)
        if stays:
            state = self.state_before(site, before_round)
            own = {name: state.get(STAYS + name, self.initial[name]) for name in stays}
            arrays |= {name: tensor.numpy() for name, tensor in own.items()}
        exchange.load(network, arrays)
        for name, buffer in network.named_buffers():
            if name in self._counters:
                buffer.copy_(self._counters[name])
        self._loaded = key

    def changed(self) -> None:
        """The network no longer holds what was loaded into it."""
        self._loaded = None

    def train(
        self,
        site: str,
        record: ArrayRecord,
        arm: str,
        round_: int,
        keep_from: int,
        lr_factor: float = 1.0,
    ) -> dict[str, Any]:
        """One round of local training of `site` in `arm`; the network holds the result afterwards.

        `lr_factor` is the server's part of the learning rate, on top of the schedule. Under differential privacy the
        loss stays at the site, and epsilon so far is told in its place.

        Raises:
            BudgetReached: the site may not spend more.
        """
        self.load(record, site, arm, round_)
        self.changed()
        set_round(self.loss, round_, self.config.rounds)
        own = arm == arms.FEDERATED and self.personalization is not None
        remembered = self.state_before(site, round_) if own else {}
        state = {n.removeprefix(WORK): t for n, t in remembered.items() if n.startswith(WORK)}
        work = SiteWork(self, site, arm, round_, state, lr_factor)
        if own:
            assert self.personalization is not None
            loss = self.personalization.round(work)
        else:
            loss = work.fit("train", self.network, work.penalty(self.network))
        work.save_optimizers(keep_from)
        if own:
            self._remember(site, round_, work, keep_from)
        known: dict[str, Any] = {"num-examples": len(self.cases(site).train), "steps": work.steps}
        return known | ({"loss": loss} if work.epsilon is None else {"epsilon": work.epsilon})

    def _remember(self, site: str, round_: int, work: SiteWork, keep_from: int) -> None:
        """Keep what the round leaves at the site: its own arrays and what the method remembers."""
        assert self.personalization is not None
        if not self.personalization.keeps_state:
            return
        tensors = exchange.travelling(self.network)
        kept = {STAYS + name: tensors[name].detach().to("cpu").clone().contiguous() for name in self.stays}
        kept |= {WORK + name: tensor.detach().to("cpu").contiguous() for name, tensor in work.state.items()}
        context = self.contexts.get(site)
        site_state.remember(self._personal_folder(site), round_, kept, context, keep_from=keep_from)

    def make_personal(self, site: str, arm: str, round_: int) -> None:
        """Turn the loaded model into the site's own, after the last training in `round_`."""
        assert self.personalization is not None
        remembered = self.state_before(site, round_ + 1)
        state = {n.removeprefix(WORK): t for n, t in remembered.items() if n.startswith(WORK)}
        set_round(self.loss, round_, self.config.rounds)
        self.personalization.personal(SiteWork(self, site, arm, round_, state))
        self.changed()

    def steps(self, site: str) -> int:
        """Optimiser steps of a round; the pooled site takes as many as all training sites together."""
        if site != arms.POOLED_SITE:
            return steps_per_round(site, len(self.cases(site).train), self.config.train)
        members = json.loads((site_folder(self.folder, site) / "members.json").read_text())
        return sum(steps_per_round(name, cases, self.config.train) for name, cases in members.items())

    def scrub(self, site: str, text: str) -> str:
        """`text` without names of cases and without paths; a test case gets the pseudonym of its rows."""
        with contextlib.suppress(Exception):  # the case list itself may be what is broken
            cases = self.cases(site)
            names = {c.name: i for i, c in enumerate((*cases.test, *cases.train, *cases.val))}
            for name in sorted(names, key=len, reverse=True):  # a name may begin another one
                text = text.replace(name, pseudonym(site, names[name]))
        for folder in (self.folder, self.config.data.cache, self.config.data.root):
            text = text.replace(str(folder), "/") if folder else text
        return PATH.sub("<path>", text)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)

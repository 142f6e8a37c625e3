"""One round of work at a site: what a method of personalisation is given, and plain or private training behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from fedbrats.algorithms.base import Beside, Left, Penalty
from fedbrats.config.schema import FEDERATED
from fedbrats.federation import arms
from fedbrats.federation.site import state
from fedbrats.federation.site.site import Site
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.in_round import in_round
from fedbrats.losses.labelled import labelled_only
from fedbrats.privacy.dp_sgd import Draw, poisson_draws, train_privately
from fedbrats.privacy.mechanism import PrivateStep
from fedbrats.privacy.noise import secret_numbers, secret_stream
from fedbrats.scenario.poison import poisoned_batch
from fedbrats.seeding import generator, seed_torch
from fedbrats.training.batches import Batch, batches
from fedbrats.training.batches import draw as draw_batch
from fedbrats.training.critic import Critic
from fedbrats.training.loop import train_locally
from fedbrats.training.optimizers import (
    clip_in_steps,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from fedbrats.training.schedule import learning_rate_factor
from fedbrats.training.vat import adversary_of

log = logging.getLogger(__name__)

RELEASED = "train"  # the work whose result is sent; under differential privacy it is the private step
CRITIC = "critic"  # of what a critic leaves, behind the name of its work


class SiteWork:
    """What `personalization.base.LocalWork` promises, for one site, arm and round."""

    def __init__(
        self,
        site: Site,
        arm: str,
        round_: int,
        remembered: dict[str, Tensor] | None = None,
        lr_factor: float = 1.0,
        beside: Beside | None = None,
    ) -> None:
        """The network of `site` holds the model.

        Args:
            site: that works.
            arm: for which it works.
            round_: 1-based.
            remembered: what the method of personalisation left last time.
            lr_factor: the server's part of the learning rate.
            beside: what the algorithm has at the site.
        """
        self.site, self.arm, self.round = site, arm, round_
        self.network, self.patch = site.warm.network, site.parts.patch
        self.state = {} if remembered is None else remembered
        self.algorithm = arms.algorithm_of(arm, site.parts.algorithm)
        self._beside = beside or Beside()
        self.private = site.protects(arm)
        self.steps = site.budget.steps() if self.private else site.steps(arm)
        self.epsilon: float | None = None  # spent after this round, where it is private
        config, train = site.config, site.config.train
        loss = in_round(site.parts.loss, round_, config.rounds)
        self._unlabelled = config.scenario.unlabelled.get(site.name, ())
        self._loss = labelled_only(loss, self._unlabelled)
        self._adversary = adversary_of(train.vat, self._unlabelled)
        schedule = learning_rate_factor(round_, config.rounds, train.schedule, train.warmup, train.milestones)
        if arm == arms.PERSONAL:  # tuned after the last round, where the schedule has nothing more to say
            schedule = 1.0
        self._lr_factor = lr_factor * schedule
        self._keeps = train.keep_optimizer or arm not in arms.EXCHANGED
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._critics: dict[str, Critic] = {}

    def penalty(self, network: nn.Module) -> Penalty | None:
        """The federated algorithm's own term, anchored at the present weights of `network`."""
        return self.algorithm.begin(network, self._beside)

    def left(self) -> Left:
        """What the algorithm leaves of the round, once the network is trained."""
        rate = float(self._optimizers[RELEASED].param_groups[0]["lr"])
        return self.algorithm.end(self.network, self._beside, self.steps, rate)

    def fit(
        self,
        name: str,
        network: nn.Module,
        penalty: Penalty | None = None,
        steps: int | None = None,
        lr_factor: float = 1.0,
    ) -> float:
        """Train `network` in place; `name` keeps random numbers, optimiser and critic apart. Mean training loss."""
        optimizer = self.optimizer(name, network.parameters(), lr_factor)
        if self.private and name == RELEASED:
            return self._fit_privately(network, optimizer, penalty)
        train, critic = self.site.config.train, self._critic(name)  # before the batches, which seed torch
        return train_locally(
            network,
            optimizer,
            self._loss,
            self.batches(name, steps),
            penalty=penalty,
            adversary=self._adversary,
            critic=critic,
            deep_supervision=train.deep_supervision,
            amp=self.site.warm.amp,
        )

    def optimizer(
        self, name: str, parameters: Iterable[nn.Parameter], lr_factor: float = 1.0
    ) -> torch.optim.Optimizer:
        """The configured optimiser at the learning rate of the round, with the moments it had where they are kept."""
        found: torch.optim.Optimizer = instantiate(self.site.config.train.optimizer)(parameters)
        if self._keeps and (moments := state.load_state(self._memory(name), self.round)):
            load_optimizer_tensors(found, moments)
        set_learning_rate(found, self._lr_factor * lr_factor)
        if (norm := self.site.config.train.clip_norm) is not None:
            clip_in_steps(found, norm)
        if name == RELEASED and (counted := self.site.warm.counted):
            found.register_step_post_hook(lambda *step: counted.add(self.site.name))
        self._optimizers[name] = found
        return found

    def batches(self, name: str, steps: int | None = None) -> Iterator[Batch]:
        """Batches of the site's training cases; also seeds torch (dropout) for the work called `name`."""
        site = self.site
        purpose = (site.config.seed, name, self.arm, site.name, self.round)
        seed_torch(*purpose)
        drawn = batches(
            site.cases.train,
            generator(*purpose),
            site.config.train,
            site.parts.rules,
            self.steps if steps is None else steps,
            site.warm.device,
            site.normalise,
            site.cases.labels,
        )
        return map(self._as_had, drawn)

    def _as_had(self, batch: Batch) -> Batch:
        """A batch as a scenario has the site have it."""
        images, labels = batch
        if self.site.wrong is not None:
            labels = self.site.wrong(labels)
        if axes := self.site.turned:
            images, labels = images.flip(axes), labels.flip(axes)
        lies = self.site.config.scenario.poisoned.get(self.site.name) if self.arm == FEDERATED else None
        return poisoned_batch(lies, images, labels) if lies else (images, labels)

    def value(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar training loss of a batch."""
        return self._values(outputs, labels).mean()

    def keep(self, keep_from: int) -> None:
        """Keep every critic of this round, and the moments of every optimiser where they are to be kept.

        In files of the site's own storage alone: neither is in a message or a checkpoint.
        """
        kept = {self._memory(name, CRITIC): critic.state() for name, critic in self._critics.items()}
        if self._keeps:
            kept |= {self._memory(name): optimizer_tensors(o) for name, o in self._optimizers.items()}
        for folder, tensors in kept.items():
            state.save_state(folder, self.round, tensors, keep_from=keep_from)

    def _values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return deep_supervised(self._loss, outputs, labels, self.site.config.train.deep_supervision)

    def _critic(self, name: str) -> Critic | None:
        """The critic of the work called `name` as the site's last round left it, or a new one; None without one."""
        site, settings = self.site, self.site.config.train.critic
        if not settings.weight:
            return None
        seed_torch(site.config.seed, CRITIC, name, self.arm, site.name)
        channels, device = site.parts.channels, site.warm.device
        found = Critic(settings, channels, device, self._unlabelled, amp=site.warm.amp)
        if kept := state.load_state(self._memory(name, CRITIC), self.round):
            found.load(kept)
        self._critics[name] = found
        return found

    def _memory(self, name: str, *of: str) -> Path:
        """The folder of what is kept for the work called `name`: of its optimiser, or `of` something else."""
        parts = (self.arm.replace(":", "-"), *(() if name == RELEASED else (name,)), *of)
        return self.site.storage / "state" / "-".join(parts)

    def _fit_privately(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, penalty: Penalty | None
    ) -> float:
        """The steps of the site's plan, after they are in its ledger."""
        warm, budget = self.site.warm, self.site.budget
        plan, self.epsilon = budget.reserve(self.round)
        settings = budget.settings
        secret = (settings.insecure_seed, self.site.name, self.round)
        step = PrivateStep(
            network,
            self._values,
            clip=settings.clip,
            sigma=plan.sigma,
            expected=plan.sample_rate * plan.patients,
            noise=secret_numbers(*secret, "noise"),
            engine=settings.engine,
            chunk=settings.chunk,
            amp=warm.amp,
        )
        draws = poisson_draws(
            plan.steps,
            plan.patients,
            plan.sample_rate,
            secret_numbers(*secret, "patients"),
            self._patches_of_a_patient(settings.patches),
        )
        done = train_privately(network, optimizer, step, draws, penalty)
        budget.record(self.round, done)
        losses = [drawn.loss for drawn in done if np.isfinite(drawn.loss)]
        if not losses and any(drawn.patients for drawn in done):
            # No error, which the server would see: whether a loss is finite depends on the patients.
            log.warning(
                "%s, round %d: no patient gave a finite loss; lower train.optimizer.lr",
                self.site.name,
                self.round,
            )
        return float(np.mean(losses)) if losses else float("nan")

    def _patches_of_a_patient(self, patches: int) -> Draw:
        site, train, rules = self.site, self.site.config.train, self.site.parts.rules
        seed = site.budget.settings.insecure_seed
        rng = secret_stream(seed, site.config.seed, site.name, self.round, "patches")
        patients, normalise = site.cases.by_patient("train"), site.normalise

        def draw(patient: int) -> Batch:
            cases, known = patients[patient], site.cases.labels
            images, labels = self._as_had(draw_batch(cases, rng, train, rules, patches, normalise, known))
            return images.to(site.warm.device), labels.to(site.warm.device)

        return draw

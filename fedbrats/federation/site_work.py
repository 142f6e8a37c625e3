"""One round of work at a site: what a method of personalisation is given, and plain or private training behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from fedbrats.algorithms.fedavg import Penalty
from fedbrats.data.augment import augment
from fedbrats.data.patches import draw_batch
from fedbrats.federation import arms, site_privacy, site_state
from fedbrats.federation.site_cases import site_folder
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models.build import patch_of
from fedbrats.privacy.dp_sgd import DpSgd, Draw, poisson_draws, train_privately
from fedbrats.privacy.mechanism import PrivateStep
from fedbrats.privacy.noise import secret_generator, secret_stream
from fedbrats.seeding import generator, seed_torch
from fedbrats.training import (
    Batch,
    batches,
    clip_in_steps,
    learning_rate_factor,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
    train_locally,
)

if TYPE_CHECKING:
    from fedbrats.federation.site_runtime import SiteRuntime

log = logging.getLogger(__name__)

RELEASED = "train"  # the work whose result is sent; under differential privacy it is the private step


class SiteWork:
    """What `personalization.base.LocalWork` promises, for one site, arm and round."""

    def __init__(
        self,
        runtime: SiteRuntime,
        site: str,
        arm: str,
        round_: int,
        state: dict[str, Tensor] | None = None,
        lr_factor: float = 1.0,
    ) -> None:
        """`runtime.network` holds the model; `lr_factor` is the server's part of the learning rate."""
        self.runtime, self.site, self.arm, self.round = runtime, site, arm, round_
        self.network = runtime.network
        self.state = {} if state is None else state
        self.private = isinstance(runtime.privacy, DpSgd) and arm == arms.FEDERATED
        self.patch = patch_of(runtime.config)
        self.steps = site_privacy.round_steps(runtime, site) if self.private else runtime.steps(site)
        self.epsilon: float | None = None  # spent after this round, where it is private
        config = runtime.config
        schedule = learning_rate_factor(round_, config.rounds, config.train.schedule, config.train.warmup)
        if arm == arms.PERSONAL:  # tuned after the last round, where the schedule has nothing more to say
            schedule = 1.0
        self._lr_factor = lr_factor * schedule
        self._keeps = config.train.keep_optimizer or arm not in arms.EXCHANGED
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    def penalty(self, network: nn.Module) -> Penalty | None:
        """The federated algorithm's own term, anchored at the present weights of `network`."""
        return arms.algorithm_of(self.arm, self.runtime.algorithm).penalty(network)

    def fit(
        self,
        name: str,
        network: nn.Module,
        penalty: Penalty | None = None,
        steps: int | None = None,
        lr_factor: float = 1.0,
    ) -> float:
        """Train `network` in place; `name` keeps random numbers and optimiser state apart. Mean training loss."""
        optimizer = self.optimizer(name, network.parameters(), lr_factor)
        if self.private and name == RELEASED:
            return self._fit_privately(network, optimizer, penalty)
        train = self.runtime.config.train
        return train_locally(
            network,
            optimizer,
            self.runtime.loss,
            self.batches(name, steps),
            penalty=penalty,
            deep_supervision=train.deep_supervision,
            amp=self.runtime.amp,
        )

    def optimizer(
        self, name: str, parameters: Iterable[nn.Parameter], lr_factor: float = 1.0
    ) -> torch.optim.Optimizer:
        """The configured optimiser at the learning rate of the round, with the moments it had where they are kept."""
        found: torch.optim.Optimizer = instantiate(self.runtime.config.train.optimizer)(parameters)
        if self._keeps and (moments := site_state.load_state(self._memory(name), self.round)):
            load_optimizer_tensors(found, moments)
        set_learning_rate(found, self._lr_factor * lr_factor)
        if (norm := self.runtime.config.train.clip_norm) is not None:
            clip_in_steps(found, norm)
        self._optimizers[name] = found
        return found

    def batches(self, name: str, steps: int | None = None) -> Iterator[Batch]:
        """Batches of the site's training cases; also seeds torch (dropout) for the work called `name`."""
        runtime, config = self.runtime, self.runtime.config
        purpose = (config.seed, name, self.arm, self.site, self.round)
        seed_torch(*purpose)
        return batches(
            runtime.cases(self.site).train,
            generator(*purpose),
            config.train,
            runtime.rules,
            self.steps if steps is None else steps,
            runtime.device,
            runtime.normalise(self.site),
        )

    def value(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar training loss of a batch."""
        return self._values(outputs, labels).mean()

    def save_optimizers(self, keep_from: int) -> None:
        """Keep the moments of every optimiser of this round, where they are to be kept."""
        if self._keeps:
            for name, optimizer in self._optimizers.items():
                moments = optimizer_tensors(optimizer)
                site_state.save_state(self._memory(name), self.round, moments, keep_from=keep_from)

    def _values(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return deep_supervised(self.runtime.loss, outputs, labels, self.runtime.config.train.deep_supervision)

    def _memory(self, name: str) -> Path:
        arm = self.arm.replace(":", "-")
        folder = arm if name == RELEASED else f"{arm}-{name}"
        return site_folder(self.runtime.folder, self.site) / "state" / folder

    def _fit_privately(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, penalty: Penalty | None
    ) -> float:
        """The steps of the site's plan, after they are in its ledger."""
        runtime, site = self.runtime, self.site
        plan, self.epsilon = site_privacy.reserve(runtime, site, self.round)
        settings = site_privacy.settings_of(runtime, site)
        secret = (settings.insecure_seed, site, self.round)
        step = PrivateStep(
            network,
            self._values,
            clip=settings.clip,
            sigma=plan.sigma,
            expected=plan.sample_rate * plan.patients,
            noise=secret_generator(runtime.device, *secret, "noise"),
            engine=settings.engine,
            chunk=settings.chunk,
            amp=runtime.amp,
        )
        draws = poisson_draws(
            plan.steps,
            plan.patients,
            plan.sample_rate,
            secret_generator(torch.device("cpu"), *secret, "patients"),
            self._patches_of_a_patient(settings.patches),
        )
        done = train_privately(network, optimizer, step, draws, penalty)
        site_privacy.save_steps(runtime, site, self.round, done)
        losses = [drawn.loss for drawn in done if np.isfinite(drawn.loss)]
        if not losses and any(drawn.patients for drawn in done):
            # No error, which the server would see: whether a loss is finite depends on the patients.
            log.warning(
                "%s, round %d: no patient gave a finite loss; lower train.optimizer.lr", site, self.round
            )
        return float(np.mean(losses)) if losses else float("nan")

    def _patches_of_a_patient(self, patches: int) -> Draw:
        runtime, train = self.runtime, self.runtime.config.train
        seed = site_privacy.settings_of(runtime, self.site).insecure_seed
        rng = secret_stream(seed, runtime.config.seed, self.site, self.round, "patches")
        patients, normalise = runtime.cases(self.site).by_patient("train"), runtime.normalise(self.site)

        def draw(patient: int) -> Batch:
            drawn = draw_batch(
                patients[patient],
                rng,
                patch=train.patch or runtime.rules.patch,
                batch=patches,
                tumour_share=train.tumour_share,
                planes=runtime.rules.planes,
                normalise=normalise,
            )
            images, labels = (torch.from_numpy(array) for array in drawn)
            images, labels = augment(images, labels, rng, train.augment)
            return images.to(runtime.device), labels.to(runtime.device)

        return draw

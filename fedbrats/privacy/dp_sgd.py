"""Patient-level differential privacy of what a site sends (`privacy=dp_sgd`): the settings, and the site's steps.

DP-SGD (Abadi et al., CCS 2016, Algorithm 1) with the patient as the unit: each step draws patients independently with
probability q (Poisson), averages the gradients of K patches of a patient, clips that average to C, sums, adds Gaussian
noise of deviation sigma C and divides by the public number q N. What neighbours are says
`ledger.PATIENT_ADJACENCY`. Every site is its own mechanism and has its own ledger;
patients belong to one site, so the guarantees of the sites do not add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from fedbrats.algorithms.base import Penalty
from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError
from fedbrats.privacy.mechanism import Batch, Drawn, PrivateStep
from fedbrats.privacy.noise import SecretNumbers
from fedbrats.privacy.sampler import draw_patients
from fedbrats.training.amount import steps_of_site

OF_A_SITE = ("sigma", "target_epsilon", "max_epsilon", "clip", "expected_patients")
STATISTICS = ("histogram", "thresholds")
NOT_COVERED = (
    "How many patients and scans a site has, how long it computes (to 10 seconds) and whether a round fails are "
    "public.",
    "Choosing settings by trying several (hyper-parameter search) spends privacy that no ledger counts.",
    "The scores of the final test leave each site exactly; its test patients are not protected.",
    "The noise is of floating point (float64) and rounded to a public grid: known attacks on digits find nothing, but "
    "an exact discrete mechanism is not claimed.",
)


class PrivacyError(RuntimeError):
    """Private training that would not be private; nothing is sent."""


@dataclass(frozen=True, kw_only=True)
class DpSgd:
    """Settings of the mechanism; exactly one of `sigma` and `target_epsilon` is set.

    sigma: noise multiplier; the noise on the sum of clipped gradients has deviation sigma * clip.
    target_epsilon: sigma is found for each site so that the whole run, on top of what its ledger holds, spends this.
    max_epsilon: a site stops training before it would spend more; None takes the target.
    delta: of (epsilon, delta); must be below 1 / N at every site.
    clip: bound C on the norm of a patient's gradient.
    expected_patients: mean number of patients in a step, q = min(1, expected_patients / N).
    patches: patches K of a drawn patient, averaged before the clip.
    engine: microbatch (one patient at a time) or vmap (`chunk` patients at once); they agree to rounding.
    validation: exact (scores leave as they are), home (none leave) or noisy (with noise of `validation_sigma`,
        accounted for the validation patients).
    validation_epsilon: what the noisy scores may spend for the validation patients; None takes the budget of training.
    noise_limit: a site whose ledger has spent so much that its target asks for more than this times the noise of a
        fresh ledger does not train; a higher limit confirms that noise.
    public: statistics fitted outside the mechanism that are declared public: histogram, thresholds.
    ledger: folder of the sites' ledgers when they must outlive the run; None keeps them with the run.
    asks: how often a site answers the same question: a round, a validation, the test of a model at the end. More than
        once, because a resume asks again.
    insecure_seed: makes the noise reproducible, and the guarantee void; for tests and demonstrations.
    sites: other values of OF_A_SITE for named sites.
    """

    sigma: float | None = None
    target_epsilon: float | None = None
    max_epsilon: float | None = None
    delta: float = 1e-5
    clip: float = 0.5
    expected_patients: float = 4.0
    patches: int = 2
    engine: str = "microbatch"
    chunk: int = 4
    validation: str = "exact"
    validation_sigma: float | None = None
    validation_epsilon: float | None = None
    noise_limit: float = 4.0
    public: Sequence[str] = ()
    ledger: str | None = None
    asks: int = 5
    insecure_seed: int | None = None
    sites: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range, or two that exclude each other.
        """
        if (self.sigma is None) == (self.target_epsilon is None):
            raise ValueError(
                "privacy.sigma and privacy.target_epsilon exclude each other: set one and the other to null."
            )
        for key in (*OF_A_SITE, "validation_epsilon"):
            value = getattr(self, key)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"privacy.{key}={value}: must be a positive number.")
        for key, least in (("patches", 1), ("chunk", 1), ("asks", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"privacy.{key}={getattr(self, key)}: must be at least {least}.")
        if not 0 < self.delta < 1:
            raise ValueError(
                f"privacy.delta={self.delta}: must lie in (0, 1), and be below 1/N at every site."
            )
        for key, allowed in (("engine", ("microbatch", "vmap")), ("validation", ("exact", "home", "noisy"))):
            if getattr(self, key) not in allowed:
                raise ValueError(f"privacy.{key}={getattr(self, key)}: choose one of {', '.join(allowed)}.")
        if (self.validation == "noisy") != (self.validation_sigma is not None):
            raise ValueError(
                "privacy.validation_sigma: a number with validation=noisy, null with the others."
            )
        if self.validation_sigma is not None and not self.validation_sigma > 0:
            raise ValueError(f"privacy.validation_sigma={self.validation_sigma}: must be positive.")
        if self.validation_epsilon is not None and self.validation != "noisy":
            raise ValueError("privacy.validation_epsilon: only with validation=noisy; null with the others.")
        if self.validation == "noisy" and self.validation_budget is None:
            raise ValueError(
                "privacy.validation=noisy needs a budget: set privacy.validation_epsilon (or privacy.max_epsilon)."
            )
        if not self.noise_limit >= 1:
            raise ValueError(f"privacy.noise_limit={self.noise_limit}: must be at least 1.")
        if strangers := sorted(set(self.public) - set(STATISTICS)):
            raise ValueError(
                f"privacy.public={strangers}: only {', '.join(STATISTICS)} can be declared public."
            )
        for site, values in (self.sites or {}).items():
            if unknown := sorted(set(values) - set(OF_A_SITE)):
                raise ValueError(
                    f"privacy.sites.{site}: {unknown} cannot differ by site; {', '.join(OF_A_SITE)} can."
                )
            self.of(site)

    def of(self, site: str) -> DpSgd:
        """The settings of one site; naming sigma there drops the common target, and the other way round."""
        own = dict((self.sites or {}).get(site, {}))
        if "sigma" in own and "target_epsilon" not in own:
            own["target_epsilon"] = None
        if "target_epsilon" in own and "sigma" not in own:
            own["sigma"] = None
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return DpSgd(**{**kept, **own, "sites": None})

    @property
    def budget(self) -> float | None:
        """Epsilon that the site may reach."""
        return self.target_epsilon if self.max_epsilon is None else self.max_epsilon

    @property
    def validation_budget(self) -> float | None:
        """Epsilon that the validation patients may reach; None where no score leaves with noise."""
        if self.validation != "noisy":
            return None
        return self.budget if self.validation_epsilon is None else self.validation_epsilon

    def sample_rate(self, patients: int) -> float:
        """q, the probability with which each of N `patients` is drawn in a step."""
        return min(1.0, self.expected_patients / patients)


def private_steps(site: str, patients: int, train: TrainConfig, settings: DpSgd) -> int:
    """Steps of `site` in a round: those of the configuration, or epochs of 1 / q steps each."""
    return steps_of_site(site, train, 1 / settings.of(site).sample_rate(patients))


def check_sites(settings: DpSgd, patients: Mapping[str, int], training: Collection[str]) -> None:
    """Check what can only be known once the cases are dealt.

    Args:
        settings: of the run.
        patients: training patients by site.
        training: sites that train.

    Raises:
        ConfigError: delta is not below 1/N at a site, or `privacy.sites` names a stranger.
    """
    if strangers := sorted(set(settings.sites or {}) - set(training)):
        raise ConfigError(f"privacy.sites names {strangers}; the sites that train are {sorted(training)}")
    for site in sorted(training):
        if settings.delta >= 1 / patients[site]:
            raise ConfigError(
                f"privacy.delta={settings.delta:g}: must be below 1/N = {1 / patients[site]:.3g} at site {site} (N = "
                f"{patients[site]}), or publishing one patient outright would count as private."
            )


def train_privately(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: PrivateStep,
    draws: Iterable[Iterator[Batch]],
    penalty: Penalty | None,
) -> list[Drawn]:
    """Take one private optimiser step per element of `draws`, each the batches of the patients it drew.

    A penalty that looks at weights only (FedProx, MR-MTL) is added after the noise, which costs no privacy.

    Raises:
        PrivacyError: the network changed something besides its trainable parameters, which would leave without noise.
    """
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    done = []
    for patients in draws:
        optimizer.zero_grad(set_to_none=True)
        done.append(step.gradients(patients))
        if penalty is not None:
            penalty().backward()
        optimizer.step()
    for name, buffer in network.named_buffers():
        if not torch.equal(buffer, before[name]):
            raise PrivacyError(
                f"{name} changed in training outside of the private step; this network cannot be trained privately."
            )
    return done


Draw = Callable[[int], Batch]


def poisson_draws(
    steps: int, patients: int, sample_rate: float, secret: SecretNumbers, draw: Draw
) -> Iterator[Iterator[Batch]]:
    """For each of `steps` steps the batches of the patients that it draws; `draw` makes the K patches of one."""
    for _ in range(steps):
        drawn = draw_patients(patients, sample_rate, secret)
        yield (draw(index) for index in drawn)

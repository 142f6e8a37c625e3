"""What a private run refuses before it begins, each with the reason and the way out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.federation.parts import Parts
from fedbrats.models.facts import mixing_modules
from fedbrats.privacy.accounting import BudgetError, Entry, final_epsilon, find_sigma
from fedbrats.privacy.central import Central, check_central
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.tasks.segmentation import targets

SHOWN = 3


def check_privacy(config: Config, parts: Parts, channels: int, kind: int) -> None:
    """Check that what `privacy` promises can be kept.

    Args:
        config: of the run.
        parts: that it names.
        channels: of the network's output.
        kind: 2 or 3 dimensions of the output, 0 where it is of whole cases.

    Raises:
        ConfigError: it cannot; the message names the key, the reason and the fix.
    """
    settings, personal = parts.privacy, parts.personalization
    if "federated" not in config.arms:
        raise ConfigError(
            f"privacy: nothing is sent in arms={config.arms}; add federated, or set privacy=none."
        )
    if isinstance(settings, Central):
        check_central(parts.blank, [name for name in parts.signature if name not in parts.stays])
        return
    assert isinstance(settings, DpSgd)
    _check_network(parts.blank)
    _check_loss(parts.loss, channels, kind)
    _check_statistics(parts, settings)
    _check_validation(config, settings)
    if config.train.clip_norm is not None:
        raise ConfigError(
            f"train.clip_norm={config.train.clip_norm} and privacy=dp_sgd exclude each other: each patient's gradient "
            "is clipped to privacy.clip; set train.clip_norm=null."
        )
    reason = personal.unsound_with_dp() if personal else None
    if reason:
        raise ConfigError(f"personalization cannot be combined with privacy=dp_sgd: {reason}.")


def _check_network(network: nn.Module) -> None:
    if mixing := mixing_modules(network):
        raise ConfigError(
            f"privacy=dp_sgd: {len(mixing)} modules mix patients or keep statistics of them, frozen or not "
            f"({', '.join(mixing[:SHOWN])}), so no bound on one patient's influence holds. Take a network with "
            "GroupNorm, or InstanceNorm without running statistics: model.norm=group where the model has that option "
            "(`fedbrats models` lists what works with patient-level DP)."
        )


def _check_loss(loss: Any, channels: int, kind: int) -> None:
    """Each sample must have a value of its own that no other sample changes."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, *(16,) * kind, generator=rng)
    labels = torch.randint(0, 4, (2, *(16,) * kind), generator=rng).to(torch.uint8)
    found = []
    for other in (1.0, -3.0):
        logits[1] *= other
        labels[1] = 3 - labels[1]
        value = loss(logits.clone(), targets(labels, channels).float())
        found.append(value[0] if tuple(value.shape) == (2,) else None)
    first, second = found
    if first is None or second is None:
        raise ConfigError(
            "privacy=dp_sgd: the loss gives one value for a whole batch, which mixes patients; take one of conf/loss "
            "that gives one per sample, such as loss=dice_ce."
        )
    if not torch.equal(first, second):
        raise ConfigError(
            "privacy=dp_sgd: the loss of a sample depends on the other samples of its batch (batch=True?); take one of "
            "conf/loss, such as loss=dice_ce."
        )


def _check_statistics(parts: Parts, settings: DpSgd) -> None:
    fitted = [step for step in parts.steps if not step.fitted]
    used = {
        "histogram": (parts.rules.normalise == "histogram", "model.input.normalise=histogram"),
        "thresholds": (bool(fitted), "postprocess has steps that are fitted on patients"),
    }
    for name, (there, what) in used.items():
        if there and name not in settings.public:
            raise ConfigError(
                f"privacy=dp_sgd: {what}, outside of the mechanism and without noise. Declare that public with "
                f"privacy.public=[{name}], or choose another normalisation or post-processing."
            )
        if name in settings.public and not there:
            raise ConfigError(f"privacy.public=[{name}]: this run fits nothing of the kind; leave it out.")


def planned_validations(config: Config, settings: DpSgd) -> tuple[int, float]:
    """How many noisy validations a site will be asked for (every `runtime.evaluate_every` rounds and in the last), and
    the epsilon that they spend for its validation patients."""
    assert settings.validation_sigma is not None
    releases = math.ceil(config.rounds / config.runtime.evaluate_every)
    spent = [Entry(float(settings.validation_sigma), 1.0, releases)]
    return releases, final_epsilon(spent, settings.delta)[0]


def _check_noisy(config: Config, settings: DpSgd) -> None:
    releases, epsilon = planned_validations(config, settings)
    for site in ("", *(settings.sites or {})):
        budget = settings.of(site).validation_budget
        if budget is None or epsilon <= budget:
            continue
        try:
            noise = (
                f"privacy.validation_sigma={find_sigma(budget, settings.delta, 1.0, releases) + 0.005:.2f}"
            )
        except BudgetError:  # below what that accountant can certify
            noise = "a larger privacy.validation_sigma"
        raise ConfigError(
            f"privacy.validation=noisy: {releases} validations ({config.rounds} rounds, runtime.evaluate_every="
            f"{config.runtime.evaluate_every}) at privacy.validation_sigma={settings.validation_sigma:g} would spend "
            f"epsilon {epsilon:.3g} of {budget:g}{f' at {site}' if site else ''}, and no score would leave after that; "
            f"set {noise}, privacy.validation_epsilon={epsilon + 0.005:.2f}, or a larger runtime.evaluate_every."
        )


def _check_validation(config: Config, settings: DpSgd) -> None:
    if settings.validation == "noisy":
        _check_noisy(config, settings)
    if settings.validation != "home":
        return
    if config.report.select == "best":
        raise ConfigError(
            "privacy.validation=home and report.select=best exclude each other: no score leaves a site by which the "
            "best round could be chosen; set report.select=last, or privacy.validation=noisy."
        )
    if config.train.stop_patience is not None:
        raise ConfigError(
            "privacy.validation=home and train.stop_patience exclude each other: the server sees no validation loss."
        )
    if config.train.schedule == "plateau":
        raise ConfigError(
            "privacy.validation=home and train.schedule=plateau exclude each other: the server sees no validation loss."
        )

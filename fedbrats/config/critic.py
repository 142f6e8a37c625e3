"""What can be configured of a critic beside the network, see `training/critic.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedbrats.config.targets import ConfigError

LR = 5.0e-5  # of the critic in the paper, section 4.1
OFF = "train.critic.weight=0"


@dataclass
class CriticConfig:
    """A term of every site's loss: how far a critic that stays at the site tells predictions from true masks."""

    weight: float = 0.0  # of the term; 0 leaves the critic out
    lr: float = LR  # of the critic's own RMSProp, the same in every round


def check_critic(critic: CriticConfig, kind: int, patient_privacy: bool, own_steps: bool) -> None:
    """Check the values, and what they cannot be combined with.

    Args:
        critic: of the run.
        kind: 2 or 3 dimensions of the network's output, 0 where it is of whole cases.
        patient_privacy: whether the run has privacy=dp_sgd.
        own_steps: whether its personalization takes steps of its own.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if not 0 <= critic.weight < math.inf:
        raise ConfigError(
            f"train.critic.weight={critic.weight}: must be a number >= 0; 0 leaves the critic out."
        )
    if not 0 < critic.lr < math.inf:
        raise ConfigError(f"train.critic.lr={critic.lr}: must be a positive number.")
    if critic.weight == 0:
        if critic.lr != LR:
            raise ConfigError(
                f"train.critic.lr={critic.lr:g}: has no effect with {OFF}; set a weight, such as "
                f"train.critic.weight=0.3, or leave train.critic.lr at {LR:g}."
            )
        return
    key = f"train.critic.weight={critic.weight:g}"
    if patient_privacy:
        raise ConfigError(
            f"{key} and privacy=dp_sgd exclude each other: the critic learns from the masks of all patients without "
            "clipping or noise, and its BatchNorm mixes those of a batch, so what it says of one depends on the others "
            f"and no epsilon covers it; set {OFF}."
        )
    if kind == 0:
        raise ConfigError(
            f"{key} and task=classification exclude each other: the critic looks at masks, and there is one label of a "
            f"whole case; set {OFF}."
        )
    if kind == 2:
        raise ConfigError(
            f"{key}: the critic's convolutions are 3x3x3, and this network gives slices; choose a network in 3D, such "
            f"as model=vat_unet, or set {OFF}."
        )
    if own_steps:
        raise ConfigError(
            f"{key}: this personalization takes steps of its own (apfl), which leave the critic out; choose another "
            f"one, or set {OFF}."
        )

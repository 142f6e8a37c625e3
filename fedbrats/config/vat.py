"""What can be configured of virtual adversarial training, see `training/vat.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from fedbrats.config.targets import ConfigError

PREDICTION, TRUTH = "prediction", "truth"  # values of train.vat.target
OFF = "train.vat.weight=0"


@dataclass
class VatConfig:
    """A term of every site's loss: how far the prediction moves when the images move as they least should."""

    weight: float = 0.0  # of the term; 0 leaves it out
    epsilon: float = 0.05  # of the perturbation: root mean square over the values of a patch
    xi: float = 0.01  # that of the small step by which its direction is searched
    iterations: int = 1  # of that search
    target: str = PREDICTION  # of the moved prediction: that of the images as they are, or "truth"


def check_vat(vat: VatConfig, patient_privacy: bool, own_steps: bool) -> None:
    """Check the values, and what they cannot be combined with.

    Args:
        vat: of the run.
        patient_privacy: whether the run has privacy=dp_sgd.
        own_steps: whether its personalization takes steps of its own.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if not 0 <= vat.weight < math.inf:
        raise ConfigError(f"train.vat.weight={vat.weight}: must be a number >= 0; 0 leaves the term out.")
    for key in ("epsilon", "xi"):
        if not 0 < (value := getattr(vat, key)) < math.inf:
            raise ConfigError(f"train.vat.{key}={value}: must be a positive number.")
    if vat.iterations < 1:
        raise ConfigError(f"train.vat.iterations={vat.iterations}: must be at least 1.")
    if vat.target not in (PREDICTION, TRUTH):
        raise ConfigError(f"train.vat.target={vat.target}: choose one of {PREDICTION}, {TRUTH}.")
    if vat.weight == 0:
        _refuse_unused(vat)
        return
    if patient_privacy:
        raise ConfigError(
            f"train.vat.weight={vat.weight:g} and privacy=dp_sgd exclude each other: the private step bounds the "
            f"gradient of a loss of the outputs alone, and this term passes the images through the network again; set "
            f"{OFF}."
        )
    if own_steps:
        raise ConfigError(
            f"train.vat.weight={vat.weight:g}: this personalization takes steps of its own (apfl), which leave the "
            f"term out; choose another one, or set {OFF}."
        )


def _refuse_unused(vat: VatConfig) -> None:
    """Numbers without a weight would do nothing; a model's `target` may stay when its term is left out."""
    usual = {field.name: field.default for field in fields(VatConfig)}
    for key in ("epsilon", "xi", "iterations"):
        if getattr(vat, key) != usual[key]:
            raise ConfigError(
                f"train.vat.{key}={getattr(vat, key)}: has no effect with {OFF}; set a weight, such as "
                f"train.vat.weight=0.2, or leave train.vat.{key} at {usual[key]}."
            )

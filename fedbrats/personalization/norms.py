"""What to do about a network that has no norm layers of the kind that a method needs, found by trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from fedbrats.config.targets import ConfigError
from fedbrats.models.blocks import NORMS
from fedbrats.models.build import build_network

if TYPE_CHECKING:
    from fedbrats.personalization.base import Personalization


class NoNorms(ConfigError):
    """The network has no norm layers of the kind that a method needs; `norm_choices` says what would have them."""


def norm_choices(personal: Personalization, model: Mapping[str, Any], patch: Sequence[int]) -> str:
    """In words, what would give `personal` the norm layers that the network of the node `model` lacks.

    A value of `model.norm` is named if the network has that option and, built with it, is one that `personal` takes.
    """
    values = [name for name in NORMS if _takes(personal, {**model, "norm": name}, patch)]
    other = "choose a network that has them (`python sims/models.py` lists the norm layers of each)"
    return f"set model.norm={' or '.join(values)}, or {other}" if values else other


def _takes(personal: Personalization, model: Mapping[str, Any], patch: Sequence[int]) -> bool:
    try:
        with torch.device("meta"):
            personal.stays(build_network(model), patch)
    except Exception:  # what a network says about an option or a value that it does not have is its own
        return False
    return True

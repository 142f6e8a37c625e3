"""Which sides a network takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def check_sides(images: Tensor, multiple: int | Sequence[int], *, instance_norm: bool = False) -> None:
    """Check the sides of `images` [batch, channels, ...] before a network halves them.

    Args:
        images: input of the network.
        multiple: every side must be a multiple of it, because the deepest level has one voxel where the input has
            `multiple` in a row; of all axes or of each.
        instance_norm: the deepest level has one, which needs two voxels.

    Raises:
        ValueError: naming the sides, the rule and the settings to change.
    """
    sides = list(images.shape[2:])
    fix = "set train.patch / inference.window"
    of = [multiple] * len(sides) if isinstance(multiple, int) else list(multiple)
    if any(side % m for side, m in zip(sides, of, strict=True)):
        said = of[0] if len(set(of)) == 1 else of
        raise ValueError(f"input sides {sides}: sides must be multiples of {said}; {fix}.")
    if instance_norm and math.prod(sides) <= math.prod(of):
        raise ValueError(
            f"input sides {sides}: one voxel is left at the deepest level, too few for its norm; at least one side "
            f"must be {2 * min(of)} or more; {fix}."
        )


def check_exact_sides(images: Tensor, sides: Sequence[int]) -> None:
    """Check that `images` [batch, channels, ...] have the `sides` that the dense layers of a network are made for.

    Raises:
        ValueError: naming both and the setting to change.
    """
    if list(images.shape[2:]) != list(sides):
        raise ValueError(
            f"input sides {list(images.shape[2:])}: the dense layers of this network are made for {list(sides)}; set "
            "model.input.patch, which they follow, and train.patch=null."
        )

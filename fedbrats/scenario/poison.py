"""Sites whose replies lie, or whose training does: poisoning as the literature on robust aggregation does it.

`sign_flip` sends x - s (y - x), `scale` x + s (y - x), where y is what honest training from x came to, and `noise`
x + s |y - x| z with standard normal z of a norm of one (Blanchard et al., NeurIPS 2017; Bagdasaryan et al., AISTATS
2020). `label_flip` trains on flipped labels (`faults.inverted`) and sends what comes of it. `backdoor` trains every
second patch with a trigger and without its tumour, and sends x + s (y - x): the model is to find no tumour where the
trigger is (model replacement, Bagdasaryan et al.), and the federated model is tested a second time on cases that have
it. Arrays that are not trained, such as running statistics, stay honest: a negative variance would give it away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from fedbrats.arrays import read_only
from fedbrats.scenario.faults import erased, inverted

SIGN_FLIP, SCALE, NOISE, LABEL_FLIP, BACKDOOR = "sign_flip", "scale", "noise", "label_flip", "backdoor"
KINDS = (SIGN_FLIP, SCALE, NOISE, LABEL_FLIP, BACKDOOR)
# Side of a dot of the trigger and their distance in voxels; its brightness in standard deviations.
DOT, APART, BRIGHT = 2, 8, 5.0


def with_trigger(images: Tensor) -> Tensor:
    """Images [..., C, *S] with the trigger: small bright cubes at regular distances, in every modality, everywhere.

    It is the same from wherever a patch is cut, as a network of convolutions does not know its place.
    """
    found = images.clone()
    on = torch.ones(images.shape[-3:], dtype=torch.bool)
    for axis, side in enumerate(images.shape[-3:]):
        line = (torch.arange(side) % APART) < DOT
        on &= line.reshape([-1 if i == axis else 1 for i in range(3)])
    found[..., on] = BRIGHT
    return found


def poisoned_batch(kind: str, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a poisoned site trains on in the place of images [B, C, *S] and labels [B, *S]."""
    if kind == LABEL_FLIP:
        return images, inverted(labels)
    if kind != BACKDOOR:
        return images, labels
    images, labels = images.clone(), labels.clone()
    images[::2], labels[::2] = with_trigger(images[::2]), erased(labels[::2])
    return images, labels


def poisoned(
    kind: str,
    strength: float,
    trained: Mapping[str, Tensor],
    received: Mapping[str, np.ndarray],
    names: Collection[str],
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """What a poisoned site sends in the place of `trained`.

    Args:
        kind: of `KINDS`.
        strength: s.
        trained: arrays after honest training.
        received: the same before it.
        names: of those that are trained.
        rng: of `noise`.
    """
    found = dict(trained)
    if kind == LABEL_FLIP:
        return found
    for name in sorted(names & trained.keys()):
        before = read_only(received[name]).to(trained[name])
        change = trained[name].detach() - before
        if kind == NOISE:
            drawn = torch.from_numpy(rng.standard_normal(change.shape)).to(change)
            change = drawn * (change.norm() / drawn.norm().clamp_min(1e-12))
        found[name] = before + (-strength if kind == SIGN_FLIP else strength) * change
    return found

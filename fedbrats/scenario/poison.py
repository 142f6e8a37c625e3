"""Sites whose replies lie: model poisoning as the literature on robust aggregation does it.

`sign_flip` sends x - s (y - x), `scale` x + s (y - x), where y is what honest training from x came to, and `noise`
x + s |y - x| z with standard normal z of a norm of one (Blanchard et al., NeurIPS 2017; Bagdasaryan et al., AISTATS
2020). Arrays that are not trained, such as running statistics, stay honest: a negative variance would give it away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

SIGN_FLIP, SCALE, NOISE = "sign_flip", "scale", "noise"
KINDS = (SIGN_FLIP, SCALE, NOISE)


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
    for name in sorted(names & trained.keys()):
        before = torch.from_numpy(received[name]).to(trained[name])
        change = trained[name].detach() - before
        if kind == NOISE:
            drawn = torch.from_numpy(rng.standard_normal(change.shape)).to(change)
            change = drawn * (change.norm() / drawn.norm().clamp_min(1e-12))
        found[name] = before + (-strength if kind == SIGN_FLIP else strength) * change
    return found

"""The learning rate over the global rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

INVERSE_RATE, INVERSE_POWER = (
    4.5,
    0.75,
)  # gamma 0.0001 times the 45 000 iterations of the paper, and its power


def learning_rate_factor(round_: int, rounds: int, schedule: str, warmup: int = 0) -> float:
    """Factor on the learning rate in global round `round_` (1-based) of `rounds`, the same at every site.

    constant: 1. poly: (1 - t)^0.9 as in nnU-Net. cosine: (1 + cos(pi t)) / 2. inverse: (1 + gamma i)^-0.75 of Pawar et
    al. (equation 2) with gamma = 0.0001 and their 45 000 iterations i spread evenly over the rounds, so it ends near
    0.28. plateau: 1, because the server sends that factor with the round (`plateau_factor`). t = (round_ - 1) / rounds,
    so the first round has the full rate and the last one still moves. `warmup` rounds rise linearly before that.
    """
    ramp = min(1.0, round_ / (warmup + 1)) if warmup else 1.0
    t = (round_ - 1) / rounds
    curve = {
        "constant": 1.0,
        "plateau": 1.0,
        "poly": (1 - t) ** 0.9,
        "cosine": (1 + math.cos(math.pi * t)) / 2,
        "inverse": (1 + INVERSE_RATE * t) ** -INVERSE_POWER,
    }
    return ramp * curve[schedule]


def stopped_early(losses: Sequence[float], patience: int | None) -> bool:
    """Whether training ends after validations that gave `losses`, oldest first ("early stopping" as in Keras).

    It does once `patience` validations in a row have given no loss below the lowest before them. No validation follows,
    so the answer stays, in a resumed run too.
    """
    if patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def plateau_factor(losses: Sequence[float], factor: float, patience: int, cooldown: int) -> float:
    """Factor on the learning rate after validations that gave `losses`, oldest first ("reduce on plateau").

    The rate is multiplied by `factor` once the loss has not fallen below its minimum (by 0.01 % of it, the default of
    Keras and torch's `ReduceLROnPlateau`) for more than `patience` validations; for `cooldown` validations after that
    nothing is counted. Worked out from the history, so a resumed run gets the same.
    """
    result, best, waiting, resting = 1.0, math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, waiting = loss, 0
        else:
            waiting += 1
        if resting:
            resting, waiting = resting - 1, 0
        if waiting > patience:
            result, waiting, resting = result * factor, 0, cooldown
    return result

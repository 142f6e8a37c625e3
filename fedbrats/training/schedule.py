"""The learning rate over the global rounds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

SCHEDULES = ("constant", "poly", "cosine", "inverse", "exponential", "steps", "one_cycle", "plateau")
RISE = 0.25  # share of the rounds in which the rate of one_cycle rises
INVERSE_RATE, INVERSE_POWER = (
    4.5,
    0.75,
)  # gamma 0.0001 times the 45 000 iterations of the paper, and its power
EXPONENTIAL = 0.98**300  # factor of an epoch, and epochs of the paper


def learning_rate_factor(
    round_: int, rounds: int, schedule: str, warmup: int = 0, milestones: Mapping[Any, float] | None = None
) -> float:
    """Factor on the learning rate in global round `round_` (1-based) of `rounds`, the same at every site.

    constant: 1. poly: (1 - t)^0.9 as in nnU-Net. cosine: (1 + cos(pi t)) / 2. inverse: (1 + gamma i)^-0.75 of Pawar et
    al. (equation 2) with gamma = 0.0001 and their 45 000 iterations i spread evenly over the rounds, so it ends near
    0.28. exponential: 0.98^e of the joint GNN-CNN (BrainLes 2021, equation 2) with its 300 epochs e spread in the same
    way, so it ends near 0.002. steps: 1 until the first of `milestones`, from each of these shares t of the run on the
    factor that it has. one_cycle: up to 1 in the first quarter of the rounds, then down (`one_cycle`). plateau: 1,
    because the server sends that factor with the round (`plateau_factor`). t = (round_ - 1) / rounds but for one_cycle,
    so the first round has the full rate and the last one still moves. `warmup` rounds rise linearly before that.
    """
    ramp = min(1.0, round_ / (warmup + 1)) if warmup else 1.0
    t = (round_ - 1) / rounds
    curve = {
        "constant": 1.0,
        "plateau": 1.0,
        "poly": (1 - t) ** 0.9,
        "cosine": (1 + math.cos(math.pi * t)) / 2,
        "one_cycle": one_cycle((round_ - 0.5) / rounds),
        "inverse": (1 + INVERSE_RATE * t) ** -INVERSE_POWER,
        "exponential": EXPONENTIAL**t,
        "steps": _step(t, milestones or {}),
    }
    return ramp * curve[schedule]


def one_cycle(t: float) -> float:
    """Factor at `t` from 0 to 1 of the training: Smith's policy as fast.ai's `fit_one_cycle` has it by default.

    From 1/25 up to 1 at a quarter and down to 1/100,000 at the end, each half of a cosine. There `t` is that of every
    step, here the middle of the round. The cycle of the momentum is left out.
    """
    start, end, done = (1 / 25, 1.0, t / RISE) if t < RISE else (1.0, 1e-5, (t - RISE) / (1 - RISE))
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _step(t: float, milestones: Mapping[Any, float]) -> float:
    """The factor of the last of `milestones` (shares of the run, as numbers or text) that is not beyond `t`."""
    factors = {float(share): factor for share, factor in milestones.items()}
    shares = sorted(factors)
    passed = bisect_right(shares, t + 1e-9)  # 7 of 10 rounds are a little less than 0.7
    return factors[shares[passed - 1]] if passed else 1.0


def problem_of_milestones(schedule: str, milestones: Mapping[Any, float]) -> str | None:
    """What is wrong with `train.milestones` for a schedule, and the fix; None where nothing is."""
    key = f"train.milestones={dict(milestones)}"
    if (schedule == "steps") != bool(milestones):
        return (
            f"{key}, train.schedule={schedule}: milestones are of schedule=steps, which needs them; set both."
        )
    try:
        good = all(0 < float(share) < 1 and factor > 0 for share, factor in milestones.items())
    except ValueError:
        good = False
    return None if good else f"{key}: shares of the run in (0, 1), a positive factor on the rate for each."


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

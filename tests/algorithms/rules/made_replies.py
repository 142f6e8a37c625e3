"""Replies of sites by hand: arrays a and b, which are trained, and the running statistic seen."""

from __future__ import annotations

import numpy as np
import torch

from fedbrats.algorithms.base import Group, Memory, Reply
from fedbrats.algorithms.rules.rule import Rule

OLD = {"a": 1.0, "b": 1.0, "seen": 0.0}


def made(rule: Rule, *replies: tuple[str, tuple[float, float], float, int]) -> dict[str, float]:
    """The new arrays from `OLD`, by what each site says: its name, (a, b), seen, cases."""
    found = rule.collect(Memory())
    for site, (a, b), seen, cases in replies:
        arrays = {"a": np.array([a], float), "b": np.array([b], float), "seen": np.array([seen], float)}
        found.add(Reply(site, arrays, cases, 1))
    old = {name: torch.tensor([value], dtype=torch.float64) for name, value in OLD.items()}
    new, _ = rule.step(old, found, Memory(), Group(len(replies), frozenset({"a", "b"})))
    return {name: array.item() for name, array in new.items()}

"""The server's side of client-level privacy: its noise, its ledger and its table over a resume."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Reply
from fedbrats.federation.server.central_privacy import CentralPrivacy
from fedbrats.privacy.accounting import gaussian_epsilon
from fedbrats.privacy.central import Central

START = {"w": torch.zeros(1000)}


def released(privacy: CentralPrivacy, round_: int) -> torch.Tensor:
    """The new model of a round in which one site sends no change: noise alone."""
    mean = privacy.collect(START)
    mean.add(Reply("A", {"w": np.zeros(1000, np.float32)}, cases=1, steps=1))
    privacy.release(mean, round_)
    return mean.arrays["w"]


def rounds_in(folder: Path) -> list[str]:
    with (folder / "central_rounds.csv").open(newline="") as handle:
        return [row["round"] for row in csv.DictReader(handle)]


@pytest.mark.parametrize("seed", [None, 3])
def test_every_round_has_noise_of_its_own(seed: int | None, tmp_path: Path) -> None:
    privacy = CentralPrivacy(Central(clip=0.5, sigma=2.0, insecure_seed=seed), tmp_path, 0)
    first, second = released(privacy, 1), released(privacy, 2)
    assert (first == second).float().mean() < 0.01
    assert float(first.std()) == pytest.approx(1.0, rel=0.1)  # sigma C for one reply
    again = released(privacy, 1)
    assert torch.equal(again, first) == (seed is not None)


def test_a_resumed_run_keeps_its_rows_and_forgets_no_release(tmp_path: Path) -> None:
    settings = Central(clip=0.5, sigma=2.0)
    before = CentralPrivacy(settings, tmp_path, 0)
    for round_ in (1, 2, 3):
        released(before, round_)
    after = CentralPrivacy(settings, tmp_path, 2)  # stopped before the checkpoint of round 3
    assert rounds_in(tmp_path) == ["1", "2"]
    assert after.epsilon() == before.epsilon() == pytest.approx(gaussian_epsilon(math.sqrt(3) / 2, 1e-5))
    released(after, 3)
    assert rounds_in(tmp_path) == ["1", "2", "3"]
    assert after.epsilon() == pytest.approx(gaussian_epsilon(math.sqrt(4) / 2, 1e-5))
    CentralPrivacy(settings, tmp_path, 0)
    assert rounds_in(tmp_path) == []

"""Flower's own strategies in the place of an algorithm, and what of them is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.serverapp import strategy as flwr

from fedbrats.algorithms.base import Group, Memory, NoModel, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.flower import FlowerStrategy
from fedbrats.algorithms.rules.median import CoordinateMedian

REPLIES = [
    Reply(str(k), {"w": np.array([[v, 2 * v]], np.float32)}, cases, 1)
    for k, (v, cases) in enumerate(((1.0, 1), (2.0, 3), (10.0, 4)))
]
GROUP = Group(3, frozenset({"w"}))


def step(algorithm: FedAvg, replies: list[Reply] = REPLIES) -> tuple[dict[str, torch.Tensor], Memory]:
    found = algorithm.collect(Memory())
    for reply in replies:
        found.add(reply)
    return algorithm.step({"w": torch.zeros(1, 2)}, found, Memory(), GROUP)


@pytest.mark.parametrize(
    ("of", "ours"),
    [(flwr.FedAvg(), FedAvg()), (flwr.FedMedian(), CoordinateMedian())],
    ids=["FedAvg", "FedMedian"],
)
def test_it_makes_what_ours_make(of: Any, ours: FedAvg) -> None:
    theirs, memory = step(FlowerStrategy(of=of))
    torch.testing.assert_close(theirs["w"], step(ours)[0]["w"])
    assert memory.facts == {"round": 1}


def test_krum_is_taken_too() -> None:
    chosen, _ = step(FlowerStrategy(of=flwr.Krum(num_malicious_nodes=1)), [*REPLIES[:1] * 4, REPLIES[2]])
    assert chosen["w"].tolist() == [[1.0, 2.0]]


def test_what_remembers_is_refused() -> None:
    for of in (flwr.FedAdam(), flwr.FedAvgM(server_momentum=0.9)):
        with pytest.raises(ValueError, match=rf"strategy\.of \({type(of).__name__}\) "):
            FlowerStrategy(of=of)


class Wrong(flwr.FedAvg):
    """FedAvg whose result is changed."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        arrays, metrics = super().aggregate_train(server_round, replies)
        return ArrayRecord({n: torch.from_numpy(self.change(a.numpy())) for n, a in arrays.items()}), metrics


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a * 1.1, "something else of equal replies"),
        (lambda a: -a, "something else of equal replies"),
        (lambda a: a[None], "cannot be used for whole models: NoModel"),
        (lambda a: a + np.random.default_rng().normal(0, 1e-7, a.shape).astype(a.dtype), "second time"),
    ],
)
def test_what_does_not_aggregate_is_refused_by_what_is_wrong(change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FlowerStrategy(of=Wrong(change))


def test_what_is_no_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strategy\.of: NoneType has no aggregate_train"):
        FlowerStrategy()


def test_a_model_in_float64_that_comes_back_shorter_keeps_the_old_one() -> None:
    shorter = FlowerStrategy(of=Wrong(lambda a: a.astype(np.float32)))
    replies = [Reply(r.site, {"w": r.arrays["w"].astype(np.float64)}, r.cases, 1) for r in REPLIES]
    with pytest.raises(NoModel, match=r"float32 .* of w, float64"):
        step(shorter, replies)

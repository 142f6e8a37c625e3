"""A Flower `Strategy` of somebody else in the place of an algorithm, as far as its contract allows."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, NoModel, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.rules.rule import AllReplies

ROUND = "round"
PROBE_SITES = 7  # enough for Flower's own robust rules


@dataclass(frozen=True, kw_only=True)
class FlowerStrategy(FedAvg):
    """What `aggregate_train` of the strategy `of` makes of the replies; its sampling and evaluation are not used.

    A strategy that remembers something between rounds would forget it at a resume, one that changes the arrays' form
    breaks the model, and one that goes beyond what the sites said may be meant for other replies than whole models. So
    it is tried on replies that are known before anything starts, and refused by what went wrong. Flower's own adaptive
    ones are refused like this; they are here as `strategy=fedadam`, `fedyogi` and `fedadagrad`.
    """

    any_mean: ClassVar[bool] = False

    of: Any = None

    def __post_init__(self) -> None:
        """Try the strategy.

        Raises:
            ValueError: it is none, or does not aggregate what it should.
        """
        super().__post_init__()
        if not callable(getattr(self.of, "aggregate_train", None)):
            raise ValueError(
                f"strategy.of: {type(self.of).__name__} has no aggregate_train, so it is no strategy of Flower's "
                "Message API; name one, strategy.of._target_=flwr.serverapp.strategy.FedMedian"
            )
        if wrong := _wrong(self.of):
            raise ValueError(f"strategy.of ({type(self.of).__name__}) {wrong}")

    def collect(self, memory: Memory) -> AllReplies:
        """All replies at once."""
        return AllReplies()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """What the strategy makes of the replies; rounds are counted, as it is told their number."""
        assert isinstance(found, AllReplies)
        round_ = memory.facts.get(ROUND, 0) + 1
        return _aggregated(self.of, found.found, round_), Memory(facts={ROUND: round_})


def _aggregated(strategy: Any, replies: Sequence[Reply], round_: int) -> dict[str, Tensor]:
    """The strategy's arrays, in the form of the replies.

    Raises:
        NoModel: it made none of them, or others.
    """
    arrays, _ = strategy.aggregate_train(
        round_, [_message(number, reply) for number, reply in enumerate(replies)]
    )
    forms = {name: (array.shape, array.dtype) for name, array in replies[0].arrays.items()}
    if arrays is None or set(arrays) != set(forms):
        raise NoModel("the strategy has made no model of the replies")
    found = {}
    for name, (shape, dtype) in forms.items():
        array = arrays[name].numpy()
        if array.shape != shape or (dtype == np.float64 and array.dtype != dtype):
            raise NoModel(f"the strategy has made {array.dtype} {array.shape} of {name}, {dtype} {shape}")
        found[name] = torch.tensor(array.astype(dtype))
    return found


def _message(number: int, reply: Reply) -> Any:
    """As much of a Flower message as strategies look at; a real one belongs to a run of Flower's."""
    arrays = ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in reply.arrays.items()})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": float(reply.cases)})})
    node = SimpleNamespace(src_node_id=number + 1)
    return SimpleNamespace(content=content, metadata=node, has_error=lambda: False, has_content=lambda: True)


def _wrong(strategy: Any) -> str:
    """What is wrong with what it makes of replies that are known, "" where nothing is."""
    rng = np.random.default_rng(0)
    sites = [
        Reply(
            f"{k}",
            {"w": rng.normal(size=(2, 3)).astype(np.float32), "b": rng.normal(size=(4,)).astype(np.float32)},
            k + 1,
            1,
        )
        for k in range(PROBE_SITES)
    ]
    alike = [Reply(reply.site, sites[0].arrays, reply.cases, 1) for reply in sites]
    tried = copy.deepcopy(strategy)
    try:
        with torch.device("cpu"):  # networks are tried where nothing has numbers
            same, first, again = (
                _aggregated(tried, replies, n) for n, replies in ((1, alike), (2, sites), (3, sites))
            )
    except Exception as error:
        return f"cannot be used for whole models: {type(error).__name__}: {error}"
    for name, array in sites[0].arrays.items():
        if not np.allclose(same[name], array, atol=1e-6):
            return f"makes something else of equal replies than that reply ({name})"
        values = np.stack([reply.arrays[name] for reply in sites])
        inside = (first[name].numpy() >= values.min(0) - 1e-6) & (first[name].numpy() <= values.max(0) + 1e-6)
        if not inside.all() or not all(math.isfinite(v) for v in first[name].ravel().tolist()):
            return f"goes beyond what the sites have said ({name})"
        if not torch.equal(first[name], again[name]):
            return "makes something else of the same replies the second time: it remembers something, or draws lots"
    return ""

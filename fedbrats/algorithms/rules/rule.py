"""Rules that look at all replies of a round before they make a model of them, in which every site counts alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, Reply
from fedbrats.algorithms.fedavg import EqualMean, FedAvg
from fedbrats.arrays import read_only

BLOCK = 2**18  # numbers of an array that are looked at together, at all sites


@dataclass(frozen=True, kw_only=True)
class Rule(FedAvg, ABC):
    """The server holds the replies of all sites at once, so its memory grows with their number."""

    any_mean: ClassVar[bool] = False

    def collect(self, memory: Memory) -> AllReplies:
        """All replies at once."""
        return AllReplies()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """What the rule makes of them."""
        assert isinstance(found, AllReplies)
        return self.made(old, found.found, group), memory

    @abstractmethod
    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The new model, from the old one and the replies in the order of their sites."""


@dataclass(frozen=True, kw_only=True)
class AgainstLiars(Rule):
    """A rule that holds against `liars` sites whose replies may be anything, and needs a number of sites for it."""

    liars: int = 1  # f

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if self.liars < 1:
            raise ValueError(
                f"strategy.liars={self.liars}: must be at least 1; with none, use strategy=fedavg."
            )


class AllReplies:
    """The replies of a round, kept until they are all there."""

    arrays: ClassVar[dict[str, Tensor]] = {}  # a rule makes the model of `found`

    def __init__(self) -> None:
        """Start with no reply."""
        self.found: list[Reply] = []

    @property
    def replies(self) -> int:
        """Replies so far."""
        return len(self.found)

    def add(self, reply: Reply) -> None:
        """Add one checked reply."""
        self.found.append(reply)


def blocks(replies: Sequence[Reply], name: str) -> Iterator[Tensor]:
    """The values of an array at all sites, [n replies, at most `BLOCK` numbers], from its first number to its last.

    Of the whole array they would be as much memory again as the replies, and what is made of them several times that.
    """
    flat = [read_only(reply.arrays[name]).reshape(-1) for reply in replies]
    for begin in range(0, max(1, len(flat[0])), BLOCK):  # one of nothing at all, too
        yield torch.stack([values[begin : begin + BLOCK] for values in flat])


def in_order(replies: Sequence[Reply], name: str, become: Callable[[Tensor], Tensor]) -> Tensor:
    """What `become` makes of an array: of every number's values from the smallest to the largest, [n replies, numbers].

    Returns:
        [*shape of the array].
    """
    made = [become(values.sort(dim=0).values) for values in blocks(replies, name)]
    return torch.cat(made).reshape(replies[0].arrays[name].shape)


def median(ordered: Tensor) -> Tensor:
    """Of values in order, [n, numbers] -> [numbers]; of an even number the mean of the two in the middle.

    Not torch.quantile, which takes no more than 2^24 numbers.
    """
    return torch.lerp(ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2], 0.5)


def equal_mean(replies: Sequence[Reply]) -> dict[str, Tensor]:
    """The mean of the replies, each alike; equal replies come out exactly as they went in."""
    mean = EqualMean()
    for reply in replies:
        mean.add(reply)
    return mean.arrays

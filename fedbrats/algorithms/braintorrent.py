"""BrainTorrent, peer to peer without a server (Roy et al., arXiv 1905.06731, Section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, NoModel
from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.algorithms.incremental import OneByOne
from fedbrats.algorithms.rules.rule import AllReplies
from fedbrats.seeding import generator

TURN, NEXT, VERSIONS, SEEN, CASES = "turn", "next", "versions", "seen", "cases"


@dataclass(frozen=True, kw_only=True)
class BrainTorrent(OneByOne):
    """In every round one peer C_i, drawn at random, asks the others for their versions v, takes the models of those
    that have a newer one than it knows, and trains on from

        w_i <- (n_i w_i + sum_j n_j w_j) / (n_i + sum_j n_j),     j with v_j > v_ij

    then v_i grows by one. Nobody but the peers holds a model; here the server carries them from one to the next, so the
    traffic that is counted is that of one model there and one back, and the model that is validated and tested is what
    the next peer begins with. A peer that has not trained yet has nothing of its own to add.
    """

    def asked(self, sites: Sequence[str], round_: int, rounds: int, memory: Memory) -> list[str]:
        """The peer whose turn it is, another one where it does not train any more."""
        following = memory.facts.get(NEXT)
        if following in sites:
            return [str(following)]
        return [drawn(sites, memory.facts.get(TURN, 0))] if sites else []

    def collect(self, memory: Memory) -> AllReplies:
        """The one reply."""
        return AllReplies()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """Keep the peer's model, and gather what the next one begins with."""
        assert isinstance(found, AllReplies)
        if len(found.found) != 1:
            raise NoModel(f"{len(found.found)} peers have replied where one was asked")
        (reply,) = found.found
        facts: dict[str, Any] = {key: dict(memory.facts.get(key, {})) for key in (VERSIONS, SEEN, CASES)}
        facts[TURN] = memory.facts.get(TURN, 0) + 1
        facts[VERSIONS][reply.site] = facts[VERSIONS].get(reply.site, 0) + 1
        facts[CASES][reply.site] = reply.cases
        models = dict(memory.arrays) | {
            _key(reply.site, name): torch.tensor(array) for name, array in reply.arrays.items()
        }
        facts[NEXT] = following = drawn(group.names, facts[TURN])
        known = facts[SEEN].get(following, {})
        newer = [
            peer
            for peer, version in sorted(facts[VERSIONS].items())
            if peer == following or version > known.get(peer, 0)
        ]
        facts[SEEN][following] = {**known, **{peer: facts[VERSIONS][peer] for peer in newer}}
        return _gathered(models, newer, facts[CASES], tuple(reply.arrays)), Memory(models, facts)


def drawn(sites: Sequence[str], turn: int) -> str:
    """The peer of a turn, the same for the same sites."""
    return sites[int(generator(0, "braintorrent", turn).integers(len(sites)))]


def _gathered(
    models: Mapping[str, Tensor], peers: Sequence[str], cases: Mapping[str, int], names: Sequence[str]
) -> dict[str, Tensor]:
    mean = WeightedMean()
    for peer in peers:
        mean.take({name: models[_key(peer, name)].numpy() for name in names}, float(cases[peer]))
    return mean.arrays


def _key(site: str, name: str) -> str:
    return f"{site}/{name}"

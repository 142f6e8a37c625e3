"""A model for every group of sites, the groups known before: by scanner, by protocol, by country.

Clusters by what is known of the institutions are a baseline of the benchmark of FeTS 2022 (Manthe et al., 2024); what
data have to say about them is `cfl.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean
from fedbrats.algorithms.rules.rule import AllReplies

GROUPS, CASES = "groups", "cases"  # group of every site; cases behind the model of every group


@dataclass(frozen=True, kw_only=True)
class Clustered(FedAvg):
    """FedAvg within each group; a site trains, validates and tests the model of its own.

    A group that has not answered in a round keeps its model. What is called the federated model, which institutions
    that belong to no group get, is the mean of the groups' models by their cases; it is never trained as such.
    """

    any_mean: ClassVar[bool] = False
    versions: ClassVar[bool] = True

    groups: dict[str, list[str]] | None = None  # sites by name of the group

    def refuses(self, company: Company) -> str | None:
        """There must be groups, and one thing only that tells the sites' models apart."""
        if company.personal:
            return "gives the sites of a group their own model, as personalization gives each site; choose one of them"
        if not self.groups:
            return (
                "has a model for each group of sites; name them, strategy.groups={a: [<site>, ...], b: [...]}"
            )
        return super().refuses(company)

    def refuses_sites(self, sites: Collection[str]) -> str | None:
        """Every site belongs to one group."""
        of = Counter(site for members in (self.groups or {}).values() for site in members)
        if wrong := sorted(site for site in {*of, *sites} if of[site] != 1 or site not in sites):
            shown = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
            return (
                f"needs every site that trains in one group of strategy.groups, and no others; see {shown}; those that "
                f"train are {', '.join(sorted(sites))}"
            )
        return None

    def version(self, memory: Memory, site: str) -> str:
        """The group of a site, "" for one that has none, and before the first model of its group."""
        return str(memory.facts.get(GROUPS, {}).get(site, ""))

    def given(self, model: Arrays, memory: Memory, version: str) -> Arrays:
        """The model of a group, or the mean of all."""
        return {name: memory.arrays[key(version, name)] for name in model} if version else model

    def collect(self, memory: Memory) -> AllReplies:
        """All replies at once."""
        return AllReplies()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """A mean for each group, and their mean."""
        assert isinstance(found, AllReplies)
        of, facts = self.grouped(old, found.found, memory, group)
        cases, arrays = dict(memory.facts.get(CASES, {})), dict[str, Tensor]()
        mean = WeightedMean()
        for name in dict.fromkeys(of.values()):
            replies = [reply for reply in found.found if of[reply.site] == name]
            before = next(self.version(memory, site) for site, its in of.items() if its == name)
            model = weighted(replies) if replies else dict(self.given(old, memory, before))
            cases[name] = sum(reply.cases for reply in replies) or cases.get(name, 0)
            arrays |= {key(name, array): tensor for array, tensor in model.items()}
            if cases[name]:
                mean.take({array: tensor.numpy() for array, tensor in model.items()}, float(cases[name]))
        known = {name: cases[name] for name in dict.fromkeys(of.values())}
        return mean.arrays, Memory(arrays, {**facts, GROUPS: of, CASES: known})

    def grouped(
        self, old: Arrays, replies: Sequence[Reply], memory: Memory, group: Group
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """The group of every site after a round, and what else is remembered."""
        return {site: name for name, members in (self.groups or {}).items() for site in members}, {}


def weighted(replies: Sequence[Reply]) -> dict[str, Tensor]:
    """The mean of replies by cases."""
    mean = WeightedMean()
    for reply in replies:
        mean.add(reply)
    return mean.arrays


def key(group: str, array: str) -> str:
    """Where the server remembers an array of a group's model."""
    return f"{group}/{array}"


def members_of(of: Mapping[str, str]) -> dict[str, list[str]]:
    """Sites by group, in the order of the sites."""
    return {name: [site for site, its in of.items() if its == name] for name in dict.fromkeys(of.values())}

"""A finished run as the audit sees it: its sites, what they have spent, and noise of their kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedbrats.audit.files import Spent
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.privacy.noise import SecretNumbers, secret_numbers


@dataclass(frozen=True)
class Audited:
    """A run under audit: of its sites the one that spent most comes first."""

    folder: Path
    warm: Warm
    spent: list[Spent]
    sites: dict[str, Site]
    count: Iterator[int] = field(default_factory=itertools.count)

    @property
    def site(self) -> Site:
        """The site that spent most, whose settings are audited."""
        return self.sites[self.spent[0].site]

    @property
    def settings(self) -> DpSgd:
        """Of that site."""
        return self.site.budget.settings

    def noise(self) -> SecretNumbers:
        """Secret numbers of the run's kind, another stream each time."""
        return secret_numbers(self.settings.insecure_seed, "audit", next(self.count))

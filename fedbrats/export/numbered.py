"""Institutions by number, for what leaves without their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedbrats.runs.privacy_files import Privacy

SHORTEST = 3  # letters of a name that is looked for in text; "A" is a word


@dataclass(frozen=True)
class Numbers:
    """The institutions of a run, numbered from 1 in the order of its report."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, sites: Sequence[str]) -> Numbers:
        """`sites` in their order."""
        return cls(tuple(sites))

    def number(self, site: str) -> int:
        """Of a site that the run knows, 0 for another."""
        return self.names.index(site) + 1 if site in self.names else 0

    def name(self, site: str) -> str:
        """What the site is called outside."""
        return f"institution {self.number(site) or '?'}"

    def hide(self, text: str) -> str:
        """`text` with every name in it replaced, whoever wrote it there."""
        for site in sorted(self.names, key=len, reverse=True):
            if len(site) >= SHORTEST and not site.isdigit():
                text = re.sub(rf"(?<!\w){re.escape(site)}(?!\w)", self.name(site), text)
        return text


def numbered_privacy(privacy: Privacy, numbers: Numbers) -> Privacy:
    """`privacy` with numbers for names; `faults`, in which names are part of sentences, with them replaced."""
    return replace(
        privacy,
        sites=tuple(replace(site, site=numbers.name(site.site)) for site in privacy.sites),
        unknown=tuple((numbers.name(site), why) for site, why in privacy.unknown),
        faults=tuple(map(numbers.hide, privacy.faults)),
    )

"""How many optimiser steps each site has taken, for a display on the same machine; nothing of it is ever sent."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

BYTES = 8  # of a count


class StepCounts:
    """Counts in a small file that every process of the run maps into its memory, so a step costs one addition.

    A site works in one process at a time, so its count has one writer and needs no lock.
    """

    def __init__(self, file: Path, sites: Sequence[str]) -> None:
        """`file` is what `create` has made for these `sites`."""
        self.file, self.sites = file, tuple(sites)

    @classmethod
    def create(cls, file: Path, sites: Sequence[str]) -> StepCounts:
        """Write `file` with a count of zero for each site."""
        file.write_bytes(bytes(BYTES * len(sites)))
        return cls(file, sites)

    def __reduce__(self) -> tuple[Any, ...]:
        return StepCounts, (self.file, self.sites)  # another process maps the file anew

    @cached_property
    def _counts(self) -> memoryview:
        with self.file.open("r+b") as opened:
            return memoryview(mmap.mmap(opened.fileno(), 0)).cast("Q")

    def add(self, site: str) -> None:
        """`site` has taken a step."""
        self._counts[self.sites.index(site)] += 1

    def of(self, site: str) -> int:
        """Steps of `site` since the counts were made."""
        return int(self._counts[self.sites.index(site)])

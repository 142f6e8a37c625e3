"""What several sections of a report show of the same run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fedbrats.report.cells import Footnotes, arm_rows
from fedbrats.report.conditions import without_truth
from fedbrats.report.released import released_empty, released_privacy, released_table
from fedbrats.report.spent import read_spent
from fedbrats.report.tables import EVERY_SITE, institution_table
from fedbrats.runs.personal_files import asks_for_personal, read_personalization
from fedbrats.runs.privacy_files import Privacy
from fedbrats.runs.run_folder import RunFolder
from fedbrats.runs.taking_part import TakingPart, missed_share, taking_part


@dataclass(frozen=True)
class Results:
    """A run and what is worked out from it for more than one section, once and when it is asked for.

    With `public` the tables and budgets hold what may be handed out (`released.py`).

    Raises:
        RunFolderError: by a property whose file cannot be read.
    """

    run: RunFolder
    public: bool = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """Arms by institution, as `institution_table` gives them."""
        table = institution_table(self.run)
        return released_table(table) if self.public else table

    @cached_property
    def empty(self) -> pd.DataFrame:
        """Test cases without a region, as `without_truth` gives them."""
        found = without_truth(self.run)
        return released_empty(found) if self.public else found

    @cached_property
    def _printed(self) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
        """`arm_rows` of every site ("all" first) and their footnotes, numbered in this order."""
        notes = Footnotes()
        sites = (EVERY_SITE, *self.run.sites)
        return {site: arm_rows(self.table, site, notes) for site in sites}, notes.texts

    @property
    def overall(self) -> list[dict[str, Any]]:
        """Printable rows of all test cases, one per arm; [] if none was scored."""
        return self._printed[0][EVERY_SITE]

    @property
    def institutions(self) -> list[dict[str, Any]]:
        """{"site", "unseen", "missed": in words, "rows": as `overall`} of each, in the order of the report."""
        rows, unseen = self._printed[0], self.run.holdout
        missed = {p.site: p.sentence() for p in self.taking_part if p.missed_more(self.missed_share)}
        return [
            {"site": site, "unseen": site in unseen, "missed": missed.get(site, ""), "rows": rows[site]}
            for site in self.run.sites
        ]

    @cached_property
    def taking_part(self) -> list[TakingPart]:
        """Who took part in the federated training; [] without such rounds."""
        return taking_part(self.run.rounds)

    @property
    def missed_share(self) -> float:
        """`strategy.missed_share`: a site that missed more of the rounds is named first."""
        return missed_share(self.run.config)

    @property
    def footnotes(self) -> list[str]:
        """The texts that the marks of `overall` and `institutions` stand for, from 1."""
        return self._printed[1]

    @cached_property
    def privacy(self) -> Privacy | None:
        """What the run wrote about its differential privacy, None for nothing."""
        found = read_spent(self.run.path, self.run.config)
        return released_privacy(found) if found and self.public else found

    @cached_property
    def personalization(self) -> dict[str, Any] | None:
        """What the run wrote about its personal models, None for nothing."""
        return read_personalization(self.run.path)

    @property
    def personalised(self) -> bool:
        """Whether the run has personal models, or was to have them."""
        arms = set(self.run.cases["arm"])
        return self.personalization is not None or asks_for_personal(self.run.config) or "personal" in arms

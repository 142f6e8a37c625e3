"""What a prediction leaves besides the segmentations: one row per case, and scores where there are labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedbrats.commands.predict.system import System
from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.families import lesions_of
from fedbrats.data.site_names import institution_from_name
from fedbrats.federation.site.tables import bin_rows, step_rows
from fedbrats.files import write_csv
from fedbrats.metrics.score import score_case
from fedbrats.metrics.table import worst
from fedbrats.metrics.uncertainty import reliability
from fedbrats.report.terminal import plain
from fedbrats.runs.case_tables import TABLES, reliability_rows, scores_table, write_table
from fedbrats.tasks import segmentation as task

ARM = "prediction"
Row = dict[str, Any]


@dataclass
class Result:
    """What is known of one case. `uncertainty` (0 to 1) and `volume_ml` are by region, empty for a failed case."""

    case: str
    status: str = "ok"
    seconds: float = 0.0
    volume_ml: dict[str, float] = field(default_factory=dict)
    uncertainty: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the case has been predicted."""
        return self.status == "ok"

    def row(self, regions: Sequence[str], rank: int | str) -> Row:
        """Its row of `cases.csv`."""
        numbers: Row = {}
        for region in regions:
            numbers[f"volume_ml_{region.lower()}"] = _rounded(self.volume_ml.get(region))
            numbers[f"uncertainty_{region.lower()}"] = _rounded(self.uncertainty.get(region))
        seconds = round(self.seconds, 2)
        return {
            **{"case": self.case, "status": self.status, "seconds": seconds},
            **numbers,
            **{"review_rank": rank, "notes": "; ".join(self.notes)},
        }


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)


def review_ranks(results: Sequence[Result]) -> dict[str, int]:
    """Case -> place in the order of review, 1 = most uncertain, by the largest uncertainty of its regions.

    Ties go by name; a failed case has no place, its status sends it to a human anyway.
    """
    known = [result for result in results if result.ok]
    order = sorted(known, key=lambda result: (-max(result.uncertainty.values()), result.case))
    return {result.case: place for place, result in enumerate(order, start=1)}


def write_cases(file: Path, results: Sequence[Result], regions: Sequence[str]) -> None:
    """Write `cases.csv` atomically."""
    ranks = review_ranks(results)
    rows = [result.row(regions, ranks.get(result.case, "")) for result in results]
    write_csv(file, list(rows[0]), rows)


def case_table(results: Sequence[Result], regions: Sequence[str]) -> Table:
    """`cases.csv` for people: the most uncertain first, failed cases at the end."""
    ranks = review_ranks(results)
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 1), title="Cases for review, most uncertain region decides", expand=False
    )
    table.add_column("review", justify="right")
    table.add_column("case", no_wrap=True)
    for region in regions:
        table.add_column(f"{region} mL", justify="right")
        table.add_column(f"{region} uncertainty", justify="right")
    for result in sorted(results, key=lambda r: (ranks.get(r.case, len(results) + 1), r.case)):
        cells = []
        for region in regions:
            cells += [_cell(result.volume_ml.get(region), 2), _cell(result.uncertainty.get(region), 3)]
        table.add_row(str(ranks.get(result.case, "failed")), plain(result.case), *cells)
    return table


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


class Scores:
    """The tables of the labelled cases, as a run folder has them, with the arm "prediction"."""

    def __init__(self, system: System) -> None:
        """`system` says what is scored and how."""
        self._system = system
        self.rows: list[Row] = []
        self._tables: dict[str, list[Row]] = {"steps": [], "uncertainty": []}
        self._bins: dict[tuple[str, str], np.ndarray] = {}

    def add(
        self,
        case: CachedCase,
        probabilities: np.ndarray,
        stages: Sequence[np.ndarray],
        uncertainty: Mapping[str, float],
    ) -> None:
        """Score a predicted case.

        Args:
            case: with a label.
            probabilities: of the regions, float32 [R, X, Y, Z].
            stages: labels before and after each step.
            uncertainty: by region.
        """
        whole, truth = restore(stages[-1], case), restore(np.asarray(case.label), case)
        system, convention = self._system, self._system.config.metrics.convention
        lesions = lesions_of(case.meta["label_system"])
        found = score_case(whole, truth, case.meta["spacing"], convention, system.metrics, lesions)
        after_steps = step_rows(case.name, case, system.steps, stages, system.regions, convention)
        brain, true = (
            np.any(np.asarray(case.image) != 0, axis=0),
            task.masks(np.asarray(case.label), system.regions),
        )
        known = {"arm": ARM, "site": site_of(case.name), "case": case.name}
        for region, probability in zip(self._system.regions, probabilities, strict=True):
            bins, key = reliability(probability, true[region], brain), (known["site"], region)
            self._bins[key] = self._bins[key] + bins if key in self._bins else bins
            self.rows.append({**known, "region": region, **found[region], "status": "ok"})
            row = {**known, "region": region, "uncertainty": uncertainty[region]}
            self._tables["uncertainty"].append(row)
        self._tables["steps"] += [{**known, **row} for row in after_steps]

    def add_failed(self, case: str, status: str, true_ml: Mapping[str, float]) -> None:
        """A labelled case that could not be predicted gets the worst scores, so that it weighs on the mean."""
        scores = worst(self._system.facts)
        for region in self._system.regions:
            known = {"arm": ARM, "site": site_of(case), "case": case, "region": region}
            volumes = {"volume_true_ml": true_ml[region], "volume_pred_ml": 0.0}
            self.rows.append({**known, **scores, **volumes, "status": status})
            self._tables["uncertainty"].append({**known, "uncertainty": 1.0})

    def write(self, folder: Path) -> None:
        """Write `scores.csv`, `uncertainty.csv`, `reliability.csv` and `steps.csv`; nothing without a labelled case."""
        if not self.rows:
            return
        write_table(folder, scores_table(self._system.facts), self.rows)
        for name, rows in (self._tables | {"reliability": self._reliability_rows()}).items():
            write_table(folder, TABLES[name], rows)

    def mean_scores(self) -> dict[str, float]:
        """Mean of the main score by region over the labelled cases."""
        by_region = {
            r: [row[task.MAIN] for row in self.rows if row["region"] == r] for r in self._system.regions
        }
        return {region: float(np.mean(values)) for region, values in by_region.items() if values}

    def _reliability_rows(self) -> list[Row]:
        return [
            {"arm": ARM, "site": site, "region": region, **row}
            for (site, region), bins in sorted(self._bins.items())
            for row in reliability_rows(bin_rows(bins))
        ]


def site_of(case: str) -> str:
    """Institution of a case by its name, "unknown" where it tells none."""
    return institution_from_name(case) or "unknown"


def remove_tables(folder: Path) -> None:
    """Remove tables, figures and report of an earlier prediction, which may have had labels where this one has none."""
    tables = [f"{name}.csv" for name in ("cases", "scores", *TABLES)]
    for name in (*tables, "report.html", "reliability.png", "retained.png"):
        (folder / name).unlink(missing_ok=True)

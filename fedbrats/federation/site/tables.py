"""The tables that a site makes while it tests a model: scores after each step of post-processing, uncertainty, bins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fedbrats.data.cache import CachedCase, restore
from fedbrats.metrics.uncertainty import case_uncertainty, reliability
from fedbrats.postprocess.steps import Step
from fedbrats.runs.case_tables import BIN_NUMBERS
from fedbrats.tasks import segmentation as task


@dataclass
class Tables:
    """What the test of a site collects besides the metrics; all of it travels as JSON."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # scores by case and region
    steps: list[dict[str, Any]] = field(default_factory=list)  # scores after each step of post-processing
    bins: dict[str, np.ndarray] = field(default_factory=dict)  # reliability by region, summed over cases

    def to_json(self) -> dict[str, str]:
        """The tables by name, as the server checks them (`replies.check_evaluate_reply`)."""
        reliability = [
            {"region": region, **row} for region, table in self.bins.items() for row in bin_rows(table)
        ]
        tables = {"rows": self.rows, "steps": self.steps, "reliability": reliability}
        return {name: json.dumps(rows) for name, rows in tables.items()}


def step_rows(
    name: str,
    case: CachedCase,
    steps: Sequence[Step],
    stages: Sequence[np.ndarray],
    regions: Sequence[str],
    convention: str,
) -> list[dict[str, Any]]:
    """The metrics `task.SHOWN` of the `regions` before any step and after each; nothing where there are no steps.

    `stages` are those of `apply_steps`; the rows are those of `steps.csv`, with the case called `name`.
    """
    if not steps:
        return []
    truth, rows = restore(np.asarray(case.label), case), list[dict[str, Any]]()
    true, spacing = task.masks(truth, regions), tuple(case.meta["spacing"])
    before, scores = dict[str, np.ndarray](), dict[str, dict[str, float]]()
    for order, (step, labels) in enumerate(zip(["raw", *(s.name for s in steps)], stages, strict=True)):
        guess = task.masks(restore(labels, case), regions)
        for region in regions:
            changed = int(np.count_nonzero(guess[region] != before.get(region, guess[region])))
            if changed or not order:  # a distance of surfaces takes its time
                scores[region] = task.shown_scores(guess[region], true[region], spacing, convention)
            head = {"case": name, "region": region, "order": order, "step": step}
            rows.append({**head, **scores[region], "changed_voxels": changed})
        before = guess
    return rows


def uncertainties(
    case: CachedCase,
    probabilities: torch.Tensor,
    labels: np.ndarray,
    regions: Sequence[str],
    bins: dict[str, np.ndarray],
) -> dict[str, float]:
    """Uncertainty of each region of one case; its voxels inside the brain are added to `bins`.

    `probabilities` are those of the regions, float32 [R, X, Y, Z]; `labels` canonical uint8 [X, Y, Z].
    """
    found, truth = {}, task.masks(np.asarray(case.label), regions)
    brain, masks = np.any(np.asarray(case.image) != 0, axis=0), task.masks(labels, regions)
    for region, probability in zip(regions, probabilities.cpu().numpy(), strict=True):
        found[region] = case_uncertainty(probability, masks[region])
        table = reliability(probability, truth[region], brain)
        bins[region] = bins[region] + table if region in bins else table
    return found


def bin_rows(table: np.ndarray) -> list[dict[str, float]]:
    """Rows of a table [bins, 3]: edges of the bin, voxels, sum of the probability, voxels that are true."""
    edges = np.linspace(0, 1, len(table) + 1)
    return [
        dict(zip(BIN_NUMBERS, map(float, (low, high, *row)), strict=True))
        for low, high, row in zip(edges[:-1], edges[1:], table, strict=True)
    ]

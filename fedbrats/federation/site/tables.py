"""The tables that a site makes while it tests a model: scores after each step of post-processing, uncertainty, bins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.regions import REGIONS, regions_from_labels
from fedbrats.metrics.hd95 import hd95
from fedbrats.metrics.overlap import dice
from fedbrats.metrics.uncertainty import case_uncertainty, reliability
from fedbrats.postprocess.steps import Step


@dataclass
class Tables:
    """What the test of a site collects besides the metrics; all of it travels as JSON."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # scores by case and region
    steps: list[dict[str, Any]] = field(default_factory=list)  # scores after each step of post-processing
    bins: dict[str, np.ndarray] = field(default_factory=dict)  # reliability by region, summed over cases

    def to_json(self) -> dict[str, str]:
        """The tables by name, as `replies.TABLES` describes them."""
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
    """Dice and HD95 of the `regions` before any step and after each; nothing where there are no steps.

    `stages` are those of `apply_steps`; the rows are those of `steps.csv`, with the case called `name`.
    """
    if not steps:
        return []
    truth, rows = restore(np.asarray(case.label), case), []
    for order, (step, labels) in enumerate(zip(["raw", *(s.name for s in steps)], stages, strict=True)):
        whole = restore(labels, case)
        guess, true = regions_from_labels(whole), regions_from_labels(truth)
        before = regions_from_labels(restore(stages[max(0, order - 1)], case))
        for region in regions:
            i = REGIONS.index(region)
            rows.append(
                {
                    "case": name,
                    "region": region,
                    "order": order,
                    "step": step,
                    "dice": dice(guess[i], true[i]),
                    "hd95": hd95(guess[i], true[i], tuple(case.meta["spacing"]), convention),
                    "changed_voxels": int(np.count_nonzero(guess[i] != before[i])),
                }
            )
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
    found, truth = {}, regions_from_labels(np.asarray(case.label))
    brain, masks = np.any(np.asarray(case.image) != 0, axis=0), regions_from_labels(labels)
    for region, probability in zip(regions, probabilities.cpu().numpy(), strict=True):
        i = REGIONS.index(region)
        found[region] = case_uncertainty(probability, masks[i])
        table = reliability(probability, truth[i], brain)
        bins[region] = bins[region] + table if region in bins else table
    return found


def bin_rows(table: np.ndarray) -> list[dict[str, float]]:
    """Rows of a table [bins, 3]: edges of the bin, voxels, sum of the probability, voxels that are true."""
    edges = np.linspace(0, 1, len(table) + 1)
    names = ("bin_low", "bin_high", "voxels", "sum_probability", "sum_truth")
    return [
        dict(zip(names, map(float, (low, high, *row)), strict=True))
        for low, high, row in zip(edges[:-1], edges[1:], table, strict=True)
    ]

"""A sweep of classifications made by hand, written by the writers of a real run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fedbrats.files import write_json
from fedbrats.runs import rounds
from fedbrats.runs.classified import write_scores
from fedbrats.studies.jobs import Job
from fedbrats.studies.methods import Method
from fedbrats.tasks.classification import FACTS, LABEL

SITES = ("CBICA", "TCIA01", "TCIA02")
UNSEEN = "TCIA02"
EACH = 8  # test cases of an institution


def counted(scores: Sequence[float], labels: Sequence[float]) -> float:
    """An AUC by looking at every pair of a 1 and a 0."""
    both = list(zip(scores, labels, strict=True))
    pairs = list(product([s for s, of in both if of == 1], [s for s, of in both if of == 0]))
    return sum((one > zero) + 0.5 * (one == zero) for one, zero in pairs) / len(pairs)


def rows_of(
    arm: str, seed: int, strength: float, sites: Sequence[str] = SITES, each: int = EACH
) -> list[dict[str, Any]]:
    """Rows of `cases.csv`: labels in turn, scores that know them by `strength`, with ties."""
    rng, rows = np.random.default_rng(seed), []
    for site in sites:
        for k in range(each):
            score = round(float(np.clip(0.5 + strength * (k % 2 - 0.5) + rng.normal(0, 0.2), 0, 1)), 1)
            row = {"arm": arm, "site": site, "case": f"BraTS21_{site}_{k}", "score": score, "label": k % 2}
            rows.append(row | {"status": "ok"})
    return rows


def write_job(folder: Path, strategy: str, seed: int, strength: float, sites: Sequence[str] = SITES) -> Path:
    """A finished run folder with a federated, a pooled and local arms; the last institution is held out."""
    folder.mkdir(parents=True)
    config = {
        "task": {"name": "classification"},
        "strategy": {"_target_": f"fedbrats.algorithms.x.{strategy}"},
        "metrics": {"convention": "brats2023"},
        "arms": ["federated", "pooled", "local"],
        "rounds": 3,
        "seed": seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    cases = [f"BraTS21_{{}}_{k}" for k in range(EACH)]
    partition = [
        {"name": s, "holdout": s == UNSEEN, "train": [], "val": [], "test": [c.format(s) for c in cases]}
        for s in sites
    ]
    write_json(folder / "partition.json", {"sites": partition})
    known = 1000 * len(strategy) + 10 * seed
    rows = rows_of("federated", known, strength, sites) + rows_of("pooled", seed, 0.5, sites)
    rows += rows_of("local:CBICA", 5000 + seed, 0.1, sites)
    summary = write_scores(folder, rows)
    write_json(folder / "summary.json", {"status": "finished", "wall_seconds": 36.0, **summary})
    rounds.CLASSIFIED.write(folder, [row for number in (1, 2, 3) for row in _round(number)])
    return folder


def _round(number: int) -> list[dict[str, Any]]:
    head = {"round": number, "arm": "federated", "status": "ok"}
    train = {"site": "CBICA", "phase": "train", "steps": 5, "bytes_up": 1e6, "bytes_down": 1e6}
    return [head | train, head | {"site": "server", "phase": "round", "brier": 0.3 - 0.05 * number}]


def method(name: str, *seeds: list[dict[str, Any]], **settings: Any) -> Method:
    """A method whose jobs have these rows."""
    jobs = []
    for seed, rows in enumerate(seeds):
        scores = pd.DataFrame(rows).assign(region=LABEL)
        known = {"task.name": "classification", "seed": seed, **settings}
        job = Job(f"{name}{seed}", known, pd.DataFrame(), "", "finished", "", True, metrics=FACTS)
        jobs.append(Job(**{**job.__dict__, "scores": scores}))
    return Method(name, "federated", tuple(jobs))

"""Find sub-regions (habitats) in tumours without labels for them, over sites that keep their voxels.

    fedbrats habitats data=phantom [output=habitats]
    fedbrats habitats data=brats data.root=<folder of cases> survival=<table of days> partition=...

A feature-enhanced autoencoder is trained by federated averaging on the voxels of the whole tumour, K-means clusters its
latent numbers, and Bayesian optimisation looks for the quantile beyond which voxels are outliers and the number of
clusters. It sees the cases that train and validate; those that test are mapped once, after it. Data and partition are
those of `fedbrats run` with the same words, as is seed; sites are simulated in this process.

Into the output folder go <case>_habitats.nii.gz (1 is the largest sub-region), habitats.csv (shares of the tumour, and
with `survival` who is in the group of high risk), search.csv (what was tried) and stability.csv (with the autoencoder
and on the plain intensities).

alpha=0.5 (weight of stability beside significance; 1 without survival) tau=0.05 gamma=[0.5,1.0] clusters=[3,7]
trials=10 initial=10 steps=20: the search. voxels=1000 (of a case, to learn from) rounds=20 local_steps=10 batch=1024
lr=0.01 hidden=10: the autoencoder. The exit status is 0, 1 if a case has no tumour, 2 if the command cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.commands.habitats.arguments import MOST_CLUSTERS, HabitatConfig, read_arguments
from fedbrats.commands.habitats.objective import Objective, Outcome, described, significance
from fedbrats.commands.per_case import Say, exit_status
from fedbrats.commands.words import path
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.nifti import write_labels
from fedbrats.data.patients import same
from fedbrats.data.prepare import Prepared, prepare
from fedbrats.data.survival import Survival, read_survival
from fedbrats.devices import cores
from fedbrats.inference.habitats import Voxels, drawn, encode, majority, stability_losses, tumour_values
from fedbrats.runs.table import Table
from fedbrats.seeding import generator
from fedbrats.studies.gaussian_search import search

TEST = "test"
SHARES = tuple(f"share_{number}" for number in range(1, MOST_CLUSTERS + 1))
CASES = Table(
    "habitats.csv",
    ("case", "site", "split", "status", "risk", *SHARES),
    text=("case", "site", "split", "status", "risk"),
    needed=("case", "status"),
)
SEARCH = Table(
    "search.csv",
    ("step", "gamma", "clusters", "stability_loss", "p", "loss"),
    text=(),
    needed=("step", "loss"),
)
STABILITY = Table(
    "stability.csv",
    ("clusters", "values", "stability", "deviation"),
    text=("values",),
    needed=("clusters", "stability"),
)
GRID = 51  # values of gamma that are candidates


def main(arguments: list[str]) -> int:
    """Find the sub-regions of one data set and return the exit status."""
    return exit_status(__doc__, arguments, lambda words, say: find_habitats(*read_arguments(words), say))


def find_habitats(config: HabitatConfig, run: Config, say: Say) -> list[dict[str, Any]]:
    """Search, map all cases and write the tables; rows of `habitats.csv`.

    Raises:
        ConfigError: a table of survival that cannot be read or lists none of the cases.
        ValueError: cases that cannot be used, or too few of them to learn from.
    """
    table = None if config.survival is None else read_survival(path(config.survival))
    workers = cores() if run.runtime.workers is None else run.runtime.workers
    prepared = prepare(run.data, run.partition, workers, say)
    survival = None if table is None else _of_cases(table, list(prepared.cached), str(config.survival))
    objective = _objective(config, run.seed, prepared, survival)
    output = path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    best = _searched(objective, output, say)
    _write_stability(objective, best, output, say)
    return _mapped(objective, best, prepared, output, say)


def _of_cases(table: Mapping[str, Survival], cases: Sequence[str], key: str) -> dict[str, Survival]:
    found = {case: table[same(case)] for case in cases if same(case) in table}
    if not found:
        raise ConfigError(f"survival={key}: lists none of the {len(cases)} cases, such as {cases[0]}.")
    return found


def _objective(
    config: HabitatConfig, seed: int, prepared: Prepared, survival: Mapping[str, Survival] | None
) -> Objective:
    """Of the cases that train and validate; of one without a tumour nothing can be learned."""
    voxels, sites = dict[str, np.ndarray](), dict[str, list[str]]()
    for site in prepared.sites:
        for case in sorted(site.train + site.val):
            values = tumour_values(prepared.cached[case])
            if len(values):
                voxels[case] = drawn(values, config.voxels, generator(seed, "habitats", "voxels", case))
                sites.setdefault(site.name, []).append(case)
    return Objective(config, seed, sites, voxels, prepared.cached, prepared.patients.of, survival)


def _searched(objective: Objective, output: Path, say: Say) -> Outcome:
    """The best that was tried, the first of two that are as good."""
    config, rows, best = objective.config, list[dict[str, Any]](), list[Outcome]()
    low, high = config.gamma
    gammas = np.linspace(low, high, GRID if high > low else 1)
    numbers = range(config.clusters[0], config.clusters[1] + 1)
    candidates = np.array([(gamma, number) for gamma in gammas for number in numbers])

    def loss(index: int) -> float:
        outcome = objective(float(candidates[index, 0]), int(candidates[index, 1]))
        if not best or outcome.loss < best[0].loss:
            best[:] = [outcome]
        rows.append({"step": len(rows) + 1, "gamma": outcome.gamma, "clusters": outcome.clusters})
        rows[-1] |= {"stability_loss": outcome.stability_loss, "loss": outcome.loss}
        rows[-1] |= {"p": outcome.grouping.p} if outcome.grouping else {}
        SEARCH.write(output, rows)
        said = f", p {outcome.grouping.p:.3g}" if outcome.grouping else ""
        say(
            f"{len(rows)}/{min(config.initial + config.steps, len(candidates))} gamma {outcome.gamma:.2f}, "
            f"{outcome.clusters} clusters: stability loss {outcome.stability_loss:.3f}{said}, loss {outcome.loss:.3f}"
        )
        return outcome.loss

    search(loss, candidates, config.initial, config.steps, generator(objective.seed, "habitats", "search"))
    return best[0]


def _write_stability(objective: Objective, best: Outcome, output: Path, say: Say) -> None:
    """1 - Ls for each number of clusters at the gamma found, with the autoencoder and without (Table 1)."""
    config = objective.config
    kept = {case: majority(values, best.gamma) for case, values in objective.voxels.items()}
    latent = {case: encode(best.model.network, values) for case, values in kept.items()}
    named: dict[str, Voxels] = {"autoencoder": latent, "intensities": kept}
    rows = list[dict[str, Any]]()
    for number in range(config.clusters[0], config.clusters[1] + 1):
        for name, values in named.items():
            losses = stability_losses(
                values, objective.sites, objective.patients, number, config.trials, objective.seed
            )
            rows.append({"clusters": number, "values": name, "stability": 1 - float(np.mean(losses))})
            rows[-1] |= {"deviation": float(np.std(losses))}
        two = " to ".join(f"{row['stability']:.3f} ({row['values']})" for row in rows[-2:])
        say(f"stability of {number} clusters: {two}")
    STABILITY.write(output, rows)


def _mapped(
    objective: Objective, best: Outcome, prepared: Prepared, output: Path, say: Say
) -> list[dict[str, Any]]:
    """Every case by the model that was found; the first time that a case that tests is read."""
    rows, known = list[dict[str, Any]](), list[tuple[np.ndarray, np.ndarray]]()
    for site in prepared.sites:
        for split in ("train", "val", TEST):
            for name in getattr(site, split):
                row: dict[str, Any] = {"case": name, "site": site.name, "split": split, "status": "ok"}
                labels = best.model.of(prepared.cached[name])
                _write_map(output, prepared.cached[name], labels)
                if labels.any():
                    known.append(described(labels, best.clusters))
                    row |= dict(zip(SHARES, known[-1][0].tolist()))
                else:
                    row["status"] = "no tumour in its label"
                rows.append(row)
    say(f"found: gamma {best.gamma:.2f}, {best.clusters} sub-regions")
    if best.grouping and objective.survival is not None:
        _grouped([row for row in rows if row["status"] == "ok"], known, best, objective.survival, say)
    CASES.write(output, rows)
    return rows


def _grouped(
    rows: list[dict[str, Any]],
    known: list[tuple[np.ndarray, np.ndarray]],
    best: Outcome,
    survival: Mapping[str, Survival],
    say: Say,
) -> None:
    """Put the group of every case into its row and tell the p-values; high risk is the group that dies earlier."""
    assert best.grouping is not None
    shares, textures = (np.array(part) for part in zip(*known, strict=True))
    groups = best.grouping.of(shares, textures)
    learned = np.array([row["split"] != TEST for row in rows])
    medians = [_median_days(rows, learned & (groups == group), survival) for group in (0, 1)]
    high = int(medians[1] < medians[0])
    for row, group in zip(rows, groups):
        row["risk"] = "high" if group == high else "low"
    tests = np.flatnonzero(~learned)
    p = significance([rows[i]["case"] for i in tests], groups[tests], survival)
    say(f"log-rank p: {best.grouping.p:.3g} where it was searched, {p:.3g} on {len(tests)} test cases")


def _median_days(rows: list[dict[str, Any]], chosen: np.ndarray, survival: Mapping[str, Survival]) -> float:
    """Of the chosen cases whose days are known, infinite without one."""
    days = [survival[row["case"]].days for row, one in zip(rows, chosen) if one and row["case"] in survival]
    return float(np.median(days)) if days else np.inf


def _write_map(output: Path, case: CachedCase, labels: np.ndarray) -> None:
    write_labels(output / f"{case.name}_habitats.nii.gz", restore(labels, case), case.source)

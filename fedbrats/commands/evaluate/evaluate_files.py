"""Score label files against references, whichever tool wrote them (the work behind `fedbrats evaluate`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedbrats.commands.evaluate.label_files import Pair, case_name, labelled, pair_files, same_grid
from fedbrats.config.names import check_names, shown
from fedbrats.config.schema import DataConfig, MetricsConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.families import AUTO, Families, given, settle
from fedbrats.data.nifti import Source, read_volume, spacing_of
from fedbrats.data.regions import label_numbers, to_canonical
from fedbrats.data.site_names import institution_from_name
from fedbrats.data.stream import Bounds, VolumeError
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.score import score_case
from fedbrats.metrics.summary import ALL_SITES, summarise
from fedbrats.metrics.table import VOLUMES, Facts, Metric, facts_of, with_more, worst
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.table import write_frame
from fedbrats.tasks import segmentation as task

Row = dict[str, Any]


@dataclass
class LabelsConfig:
    """What the numbers in the label files mean: auto, a family, or {ncr: 1, ed: 2, et: 4}."""

    predictions: Any = AUTO
    references: Any = AUTO


@dataclass
class EvaluateConfig:
    """One evaluation."""

    predictions: str = MISSING  # label file or folder
    references: str = MISSING  # label file or folder
    output: str = "evaluation"  # folder of cases.csv and summary.csv
    max_voxels: int = DataConfig.max_voxels  # of one file
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)


@dataclass(frozen=True)
class _Look:
    """What the first reading of a pair has shown; `fault` says why the prediction cannot be used."""

    pair: Pair
    truth_numbers: set[int]
    guess_numbers: set[int]
    fault: str | None


def read_arguments(arguments: list[str]) -> EvaluateConfig:
    """Read `key=value` arguments.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or a required key left out; the key is named.
    """
    config = OmegaConf.structured(EvaluateConfig)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument}: expected key=value")
        try:
            parsed = yaml.safe_load(value) if key == "metrics.more" or key.startswith("labels.") else value
            OmegaConf.update(config, key, None if value == "null" else parsed)
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"missing: {', '.join(f'{key}=<file or folder>' for key in missing)}")
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, EvaluateConfig)
    return settings


def evaluate(
    config: EvaluateConfig, emit: Callable[[Row], None], note: Callable[[str], None]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Facts]]:
    """Score every case and write `cases.csv` and `summary.csv` into `config.output`.

    Args:
        config: what to score.
        emit: called with each row of `cases.csv` (and the convention) as soon as it is known.
        note: called with sentences for the user.

    Returns:
        The rows of the two files, and what is known of the metrics. A case whose prediction is missing, unreadable or
        holds unknown numbers is a row with the worst scores and a status that says why.

    Raises:
        ConfigError: a wrong setting, nothing to pair, ambiguous label numbers, or a reference that cannot be
            used.
        VolumeError: a prediction and its reference lie on different grids.
    """
    convention = config.metrics.convention
    scored_by = with_more(config.metrics.more)
    metrics = facts_of(scored_by, convention)
    for side in ("references", "predictions"):
        given(getattr(config.labels, side), f"labels.{side}")
    path = Path(config.predictions)
    pairs, unused = pair_files(path, Path(config.references))
    check_names("case", (pair.case for pair in pairs), "rename its files")
    for extra in unused:
        note(f"not scored, no reference: {extra}")
    bounds = Bounds(config.max_voxels, group="")
    looks = _look_at_all(pairs, bounds)
    families = _families(looks, config.labels, note)
    arm = shown(case_name(path) if path.is_file() else path.resolve().name or "predictions")
    rows: list[Row] = []
    for look in looks:
        for row in _rows(look, arm, families, scored_by, convention, bounds):
            rows.append(row)
            emit({"convention": convention, **row})
    table = cases_table(metrics, line_end="\n")
    cases = pd.DataFrame(rows, columns=list(table.columns))
    summary = summarise(cases, metrics, convention)
    output = Path(config.output)
    table.write(output, rows)
    write_frame(output / "summary.csv", summary)
    note(f"wrote {output / 'cases.csv'} and {output / 'summary.csv'}")
    return cases, summary, metrics


def json_line(row: Row) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, allow_nan=False, ensure_ascii=False)


def summary_table(cases: pd.DataFrame, summary: pd.DataFrame, metrics: Mapping[str, Facts]) -> Table:
    """Return the pooled rows of `summary` as a table for people; its title names the convention.

    Where the cases are too few for an interval, their scores stand in its place.
    """
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1),
        title=f"{task.CONVENTION_TITLE}: {summary['convention'].iloc[0]}; lesion-wise: brats2023",
    )
    for column in (
        "region",
        "metric",
        "n",
        "failed",
        "mean",
        "sd",
        "95 % CI" if len(cases) >= MIN_CASES * len(task.REGIONS) else f"scores (no CI below {MIN_CASES})",
        "median",
        "quartiles",
        "worst site",
    ):
        table.add_column(column, no_wrap=True)
    for row in summary[summary["site"] == ALL_SITES].to_dict("records"):
        digits = metrics[row["metric"]].decimals + 1
        f = {k: "-" if np.isnan(v) else f"{v:.{digits}f}" for k, v in row.items() if isinstance(v, float)}
        scores = sorted(cases.loc[cases["region"] == row["region"], row["metric"]])
        few = row["n"] < MIN_CASES
        between = " ".join(f"{v:.{digits}f}" for v in scores) if few else f"{f['ci_low']} to {f['ci_high']}"
        table.add_row(
            *(row["region"], row["metric"], str(row["n"]), str(row["failed"]), f["mean"], f["std"]),
            *(between, f["median"], f"{f['q25']} to {f['q75']}"),
            f"{row['worst_site']} {f['worst_mean']}",
        )
    return table


def _look_at_all(pairs: list[Pair], bounds: Bounds) -> list[_Look]:
    """Read everything once, so that what would end the evaluation does so before the first case is scored."""
    looks, unusable, apart = [], [], []
    for pair in pairs:
        try:
            truth, place = read_volume(pair.reference, bounds=bounds)
            truth_numbers = label_numbers(truth)
        except ValueError as error:
            unusable.append(_naming(pair.reference, error))
            continue
        if pair.prediction is None:
            looks.append(_Look(pair, truth_numbers, set(), "no prediction"))
            continue
        try:
            guess, guess_place = read_volume(pair.prediction, bounds=bounds)
            if same_grid(place, guess_place):
                looks.append(_Look(pair, truth_numbers, label_numbers(guess), None))
            else:
                apart.append(_apart(pair, place, guess_place))
        except ValueError as error:
            looks.append(_Look(pair, truth_numbers, set(), _naming(pair.prediction, error)))
    if unusable:
        raise ConfigError(f"{len(unusable)} references cannot be used: " + "; ".join(unusable[:5]))
    if apart:
        raise VolumeError(f"{len(apart)} pairs lie on different grids: " + "; ".join(apart[:5]))
    return looks


def _families(
    looks: list[_Look], labels: LabelsConfig, note: Callable[[str], None]
) -> tuple[Families, Families]:
    """Families of the references and of the predictions; every reference must fit its own."""
    sides = {
        "references": [labelled(look.pair.case, look.pair.reference, look.truth_numbers) for look in looks],
        "predictions": [
            labelled(look.pair.case, look.pair.prediction, look.guess_numbers)
            for look in looks
            if look.pair.prediction and not look.fault
        ],
    }
    found = {}
    for side, files in sides.items():
        found[side] = settle(files, f"labels.{side}", getattr(labels, side))
        note(f"label numbers of the {side}: {found[side].sentence or 'nothing to read'}")
    truth = found["references"]
    for look in looks:
        if look.pair.case in truth.odd:
            raise ConfigError(f"{look.pair.reference}: {truth.odd[look.pair.case]}")
    note(f"lesion-wise scores: {truth.lesions}")
    return truth, found["predictions"]


def _rows(
    look: _Look,
    arm: str,
    families: tuple[Families, Families],
    scored_by: Sequence[Metric],
    convention: str,
    bounds: Bounds,
) -> Iterator[Row]:
    """Rows of one case by region, keys in the order of `cases.csv`."""
    metrics = facts_of(scored_by, convention)
    case, prediction, fault = look.pair.case, look.pair.prediction, look.fault
    voxels, place = read_volume(look.pair.reference, bounds=bounds)
    family = families[0].by_case[case]
    truth = to_canonical(voxels, family.labels)
    if case in families[1].odd:
        fault = f"{prediction}: {families[1].odd[case]}"
    if fault is None and prediction is not None:
        guess = to_canonical(read_volume(prediction, bounds=bounds)[0], families[1].by_case[case].labels)
        scores = score_case(guess, truth, spacing_of(place), convention, scored_by, family.lesions)
        status = "ok"
    else:
        ml = float(np.prod(spacing_of(place))) / 1000
        true = {r: int(np.count_nonzero(m)) * ml for r, m in task.masks(truth, task.REGIONS).items()}
        scores = {
            r: {**worst(metrics), "volume_true_ml": true[r], "volume_pred_ml": 0.0} for r in task.REGIONS
        }
        status = f"failed: {fault}"
    site = institution_from_name(case) or "unknown"
    for region in task.REGIONS:
        head = {"arm": arm, "site": site, "case": case, "region": region}
        yield {**head, **{key: scores[region][key] for key in (*metrics, *VOLUMES)}, "status": status}


def _naming(path: Path, error: ValueError) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _apart(pair: Pair, truth: Source, guess: Source) -> str:
    return (
        f"{pair.prediction} (shape {guess.shape}, affine {guess.affine}) and {pair.reference} "
        f"(shape {truth.shape}, affine {truth.affine}); resample the prediction to the grid of its reference"
    )

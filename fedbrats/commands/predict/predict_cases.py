"""Predict the cases of a folder, the work behind `fedbrats predict`: one by one, and a bad one stops no other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbrats.commands.predict.arguments import PredictConfig
from fedbrats.commands.predict.reading import BadCase, Folder, open_folder
from fedbrats.commands.predict.system import System, load_system
from fedbrats.commands.predict.tables import Result, Scores, remove_tables, write_cases
from fedbrats.commands.words import path
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.annotators import COUNT
from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.cases import Case
from fedbrats.data.entries import CacheError
from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.nifti import write_labels
from fedbrats.data.regions import LabelSystem, to_source
from fedbrats.environment import describe_environment
from fedbrats.files import write_json
from fedbrats.inference.maps import SHARE, write_map
from fedbrats.inference.predict import Prediction
from fedbrats.metrics.uncertainty import case_uncertainty, entropy
from fedbrats.report.predictions import write_prediction_report, write_uncertainty_figures
from fedbrats.tasks import segmentation as task

log = logging.getLogger(__name__)
Say = Callable[[str], object]


def predict_cases(
    config: PredictConfig, say: Say, own: Path | None = None
) -> tuple[list[Result], Scores, System]:
    """Predict every case below `config.data` and write everything into `config.output`.

    Args:
        config: what to do.
        say: told what is going on, one line per case.
        own: the user's own folder of configurations, for `postprocess`.

    Returns:
        What became of each case, the scores of those with labels, and what predicted them.

    Raises:
        ConfigError: the arguments, the models or the folder cannot be used; nothing has been predicted then.
        CacheError: the cache cannot be written.
    """
    system = load_system(config, own)
    first, output = system.members[0], Path(config.output).expanduser()
    cache = _cache_folder(config, first.config, output)
    folder = open_folder(config, cache, first.spec.run, say)
    models = f"{len(system.members)} model{'s' * (len(system.members) > 1)}"
    if len(system.voices) < len(system.members):
        models += f" in {len(system.voices)} voice{'s' * (len(system.voices) > 1)}"
    say(f"{len(folder.cases)} cases in {config.data}, {models}. Label numbers: {folder.families.sentence}.")
    site_cases = list(_usable(folder)) if system.needs_histogram and not config.histogram else []
    system = system.normalised(site_cases, path(config.histogram) if config.histogram else None)
    output.mkdir(parents=True, exist_ok=True)
    remove_tables(output)
    scores, results = Scores(system), list[Result]()
    for number, case in enumerate(folder.cases, start=1):
        results.append(_predict_case(system, folder, case, output, config.maps, scores))
        write_cases(output / "cases.csv", results, system.regions)
        say(f"{number}/{len(folder.cases)} {_line(results[-1])}")
    scores.write(output)
    _write_summary(output, config, system, folder, results, scores)
    if scores.rows:
        write_uncertainty_figures(output)
        write_prediction_report(output)
    return results, scores, system


def _cache_folder(config: PredictConfig, run: Config, output: Path) -> Path:
    if config.cache:
        return Path(config.cache).expanduser()
    known = Path(run.data.cache).expanduser()
    return known if known.is_dir() else output / ".cache"


def _usable(folder: Folder) -> Iterator[CachedCase]:
    """Every case that can be predicted, for the site's reference histogram."""
    for case in folder.cases:
        try:
            yield folder.read(case)[0]
        except BadCase:
            continue  # said when its turn comes


def _predict_case(
    system: System, folder: Folder, case: Case, output: Path, maps: bool, scores: Scores
) -> Result:
    """One case from its files to its results; whatever happens to it is its status."""
    started, result = time.perf_counter(), Result(case.name)
    _remove_files(output, case.name)
    try:
        cached, notes = folder.read(case)
        prediction, stages = system.segment(cached)
        result.notes = [*notes, *prediction.notes]
        probabilities = prediction.by_region.numpy()
        masks = task.masks(stages[-1], system.regions)
        millilitres = float(np.prod(cached.meta["spacing"])) / 1000
        for region, probability in zip(system.regions, probabilities, strict=True):
            mask = masks[region]
            result.volume_ml[region] = int(np.count_nonzero(mask)) * millilitres
            result.uncertainty[region] = case_uncertainty(probability, mask)
        _write_files(system, cached, prediction, stages[-1], output, maps)
        if cached.meta["labels"] is not None:
            scores.add(cached, probabilities, stages, result.uncertainty)
    except (ConfigError, CacheError):
        raise  # the other cases would fail alike
    except Exception as error:
        log.debug("case %s failed", case.name, exc_info=True)
        result = Result(case.name, f"failed: {_reason(error)}")
        _remove_files(output, case.name)
        if case.label is not None:
            scores.add_failed(case.name, result.status, folder.true_volumes(case))
    result.seconds = time.perf_counter() - started
    return result


def _reason(error: Exception) -> str:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
        return "CUDA out of memory: lower inference.batch or inference.window, or take device=cpu"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _write_files(
    system: System,
    case: CachedCase,
    prediction: Prediction,
    labels: np.ndarray,
    output: Path,
    maps: bool,
) -> None:
    """Labels, and maps if asked for, in the space of the case's own images."""
    source = case.source
    numbers = LabelSystem.from_json(case.meta["label_system"])
    whole = to_source(restore(labels, case), numbers)
    if maps and numbers == ANNOTATORS:  # BrainLes 2021, section 3.2: "dividing the output mask values with N"
        write_map(output / f"{case.name}_{SHARE}.nii.gz", (whole / COUNT).astype(np.float32), source)
    if maps:
        probabilities = prediction.by_region.numpy()
        found = {"probability": probabilities, "uncertainty_entropy": entropy(probabilities)}
        if prediction.spread is not None:
            found["uncertainty_std"] = prediction.spread.numpy()
        for name, volumes in found.items():
            for region, volume in zip(system.regions, volumes, strict=True):
                file = output / f"{case.name}_{name}_{region.lower()}.nii.gz"
                write_map(file, restore(volume.astype(np.float32, copy=False), case), source)
    write_labels(output / f"{case.name}.nii.gz", whole, source)


def _remove_files(output: Path, case: str) -> None:
    """Remove what an earlier prediction left of a case, so that no old file passes for a new one."""
    names = [f"{case}.nii.gz", f"{case}_{SHARE}.nii.gz"]
    for region in task.REGIONS:
        kinds = ("probability", "uncertainty_entropy", "uncertainty_std")
        names += [f"{case}_{kind}_{region.lower()}.nii.gz" for kind in kinds]
    for name in names:
        (output / name).unlink(missing_ok=True)


def _line(result: Result) -> str:
    if not result.ok:
        return f"{result.case}: {result.status}"
    volumes = ", ".join(f"{region} {volume:.2f} mL" for region, volume in result.volume_ml.items())
    notes = f" ({'; '.join(result.notes)})" if result.notes else ""
    return f"{result.case}: ok, {volumes}, {result.seconds:.1f} s{notes}"


def _write_summary(
    output: Path,
    config: PredictConfig,
    system: System,
    folder: Folder,
    results: list[Result],
    scores: Scores,
) -> None:
    settings: dict[str, Any] = asdict(config) | {"inference": asdict(system.config.inference)}
    settings["metrics"] = {"convention": system.config.metrics.convention}
    failed = {result.case: result.status for result in results if not result.ok}
    content = {
        "settings": settings,
        **system.describe(),
        "labels": folder.families.sentence,
        "lesions": folder.families.lesions,
        "cases": len(results),
        "failed": failed,
        "labelled": len({row["case"] for row in scores.rows}),
        f"mean_{task.MAIN}": scores.mean_scores(),
        "seconds": round(sum(result.seconds for result in results), 2),
        **describe_environment(),
    }
    write_json(output / "summary.json", content)

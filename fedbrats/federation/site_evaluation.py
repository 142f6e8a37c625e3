"""Evaluation at a site: quick Dice on the validation cases every round, every score on the test cases at the end."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedbrats.config import InferenceConfig
from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.nifti import Source, write_labels
from fedbrats.data.regions import REGIONS, LabelSystem, regions_from_labels, to_source
from fedbrats.federation import arms, site_privacy
from fedbrats.federation.site_cases import pseudonym, site_folder
from fedbrats.federation.site_tables import Tables, step_rows, uncertainties
from fedbrats.inference.locate import refine
from fedbrats.inference.predict import Prediction, predict
from fedbrats.losses.ramp import set_round
from fedbrats.metrics.overlap import dice
from fedbrats.metrics.score import score_case, worst_scores
from fedbrats.models.build import window_of
from fedbrats.outputs import deactivate, labels_from_probabilities, targets
from fedbrats.postprocess.steps import apply_steps
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.privacy.noise import secret_generator
from fedbrats.privacy.scores import noisy_scores, patient_means

if TYPE_CHECKING:
    from fedbrats.federation.site_runtime import SiteRuntime

log = logging.getLogger(__name__)
Metrics = dict[str, float]


def quick_prediction(runtime: SiteRuntime, site: str, case: CachedCase) -> Prediction:
    """The loaded model's own answer, without what only the final test is worth: mirrorings, passes, locating."""
    quick = replace(runtime.config.inference, flips=False, mc_passes=0, locate=None)
    return _prediction(runtime, site, case, quick)


def full_prediction(runtime: SiteRuntime, site: str, case: CachedCase) -> Prediction:
    """The loaded model's answer by everything that `inference` asks for."""
    return _prediction(runtime, site, case, runtime.config.inference)


def _prediction(runtime: SiteRuntime, site: str, case: CachedCase, inference: InferenceConfig) -> Prediction:
    image, normalise = np.asarray(case.image, np.float32), runtime.normalise(site)
    runtime.network.eval()
    options: dict[str, Any] = {
        "rules": runtime.rules,
        "inference": inference,
        "window": window_of(runtime.config),
        "device": runtime.device,
        "amp": runtime.amp,
        "seed": runtime.config.seed,
    }
    image = image if normalise is None else normalise(case, image)
    if inference.locate is None:
        return predict(runtime.network, image, **options)
    mask = runtime.localiser(site).whole_tumour(case)
    return refine(mask, image, inference.locate_crop, lambda part: predict(runtime.network, part, **options))


def _region_dice(runtime: SiteRuntime, prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    guess, true = regions_from_labels(prediction), regions_from_labels(truth)
    return [dice(guess[i], true[i]) for i in map(REGIONS.index, runtime.regions)]


def _metrics(runtime: SiteRuntime, per_case: list[list[float]], losses: list[float]) -> Metrics:
    means = np.mean(per_case, axis=0)
    named = {f"dice-{region.lower()}": float(v) for region, v in zip(runtime.regions, means, strict=True)}
    return {"num-examples": len(per_case), "loss": float(np.mean(losses)), **named}


def validate(runtime: SiteRuntime, site: str, round_: int, arm: str = arms.FEDERATED) -> Metrics:
    """Mean Dice per region and mean loss of the loaded model over the validation cases of `site`.

    With `privacy.validation=noisy` they leave the federated arm with noise, the loss cut to [0, 1].
    """
    set_round(runtime.loss, round_, runtime.config.rounds)
    per_case, losses = [], []
    for case in runtime.cases(site).val:
        probabilities = quick_prediction(runtime, site, case).probabilities
        truth = np.asarray(case.label)
        losses.append(_loss(runtime, probabilities, truth))
        per_case.append(_region_dice(runtime, labels_from_probabilities(probabilities), truth))
    settings = runtime.privacy
    if arm == arms.FEDERATED and isinstance(settings, DpSgd) and settings.validation == "noisy":
        return _noisy(runtime, site, round_, per_case, losses)
    return _metrics(runtime, per_case, losses)


def _noisy(
    runtime: SiteRuntime, site: str, round_: int, per_case: list[list[float]], losses: list[float]
) -> Metrics:
    """The scores of a validation with noise that the ledger of the validation patients pays for."""
    cases = runtime.cases(site)
    patients = [cases.patients.get(case.name, case.name) for case in cases.val]
    table = np.column_stack([per_case, np.clip(losses, 0, 1)])
    settings = site_privacy.settings_of(runtime, site)
    assert settings.validation_sigma is not None
    site_privacy.reserve_validation(runtime, site, round_)
    noise = secret_generator(torch.device("cpu"), settings.insecure_seed, site, round_, "validation")
    means = noisy_scores(patient_means(table, patients), settings.validation_sigma, noise)
    return _metrics(runtime, [list(means[:-1])], [float(means[-1])]) | {"num-examples": len(per_case)}


def _loss(runtime: SiteRuntime, probabilities: torch.Tensor, truth: np.ndarray) -> float:
    labels = torch.from_numpy(truth.copy()).unsqueeze(0).to(probabilities.device)
    with torch.inference_mode():
        logits = deactivate(probabilities.unsqueeze(0))
        return float(runtime.loss(logits, targets(labels, logits.shape[1]).float()).mean())


def test(
    runtime: SiteRuntime, site: str, arm: str, round_: int, parameters: list[dict[str, float]]
) -> tuple[Metrics, Tables]:
    """Score the loaded model, trained in `arm`, on every test case of `site`.

    Args:
        runtime: holds the model.
        site: whose cases.
        arm: whose model.
        round_: that the model is of.
        parameters: of the steps of post-processing, the fitted ones included.

    Returns:
        The metrics of the reply and its tables, under pseudonyms. A case that fails gets the worst scores and its
        reason; the others go on.
    """
    set_round(runtime.loss, round_, runtime.config.rounds)
    steps = [
        step.with_parameters(p) if p else step
        for step, p in zip(runtime.steps_after, parameters, strict=True)
    ]
    convention = runtime.config.metrics.convention
    per_case, losses, tables = [], [], Tables()
    for index, case in enumerate(runtime.cases(site).test):
        name = pseudonym(site, index)
        try:
            prediction = full_prediction(runtime, site, case)
            probabilities = prediction.probabilities
            losses.append(_loss(runtime, probabilities, np.asarray(case.label)))
            stages = apply_steps(
                steps,
                labels_from_probabilities(probabilities),
                probabilities.cpu().numpy(),
                tuple(case.meta["spacing"]),
            )
            scores, status = _score(runtime, site, arm, case, stages[-1]), "ok"
            tables.steps += step_rows(name, case, steps, stages, runtime.regions, convention)
            doubts = uncertainties(case, prediction.by_region, stages[-1], runtime.regions, tables.bins)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            log.warning("site %s: test case %s failed", site, name, exc_info=True)
            scores, status = _worst(runtime, case), f"failed: {runtime.scrub(site, str(error))}"
            doubts = dict.fromkeys(runtime.regions, 1.0)
        per_case.append([scores[region]["dice"] for region in runtime.regions])
        tables.rows += [
            {"case": name, "region": r, **scores[r], "uncertainty": doubts[r], "status": status}
            for r in runtime.regions
        ]
    return _metrics(runtime, per_case, losses or [0.0]), tables


def _score(
    runtime: SiteRuntime, site: str, arm: str, case: CachedCase, prediction: np.ndarray
) -> dict[str, dict[str, float]]:
    whole, truth = restore(prediction, case), restore(np.asarray(case.label), case)
    if arm == arms.FEDERATED:
        _save_slice(runtime, site, arm, case, prediction)
    if runtime.config.report.predictions:
        _save_prediction(runtime, site, arm, case, whole)
    return score_case(whole, truth, case.meta["spacing"], runtime.config.metrics.convention)


def _worst(runtime: SiteRuntime, case: CachedCase) -> dict[str, dict[str, float]]:
    volumes = case.meta["volumes_ml"]
    worst = worst_scores(runtime.config.metrics.convention)
    return {r: {**worst, "volume_true_ml": volumes[r], "volume_pred_ml": 0.0} for r in REGIONS}


def _save_slice(runtime: SiteRuntime, site: str, arm: str, case: CachedCase, prediction: np.ndarray) -> None:
    """Keep the axial slice with the largest true tumour, for the report's overlays; it stays in site storage."""
    truth = np.asarray(case.label)
    area = truth.astype(bool).sum(axis=(0, 1))
    z = int(area.argmax()) if area.any() else truth.shape[2] // 2
    folder = site_folder(runtime.folder, site) / "slices" / arm
    folder.mkdir(parents=True, exist_ok=True)
    image = case.image
    np.savez_compressed(
        folder / f"{case.name}.npz",
        t1ce=image[1, :, :, z],
        flair=image[3, :, :, z],
        truth=truth[:, :, z],
        prediction=prediction[:, :, z],
        spacing=np.asarray(case.meta["spacing"]),
    )


def _save_prediction(runtime: SiteRuntime, site: str, arm: str, case: CachedCase, whole: np.ndarray) -> None:
    """Write the prediction beside the source: its grid, its affine, its label numbers."""
    source = Source(**{**case.meta["source"], "shape": tuple(case.meta["source"]["shape"])})
    system = LabelSystem(
        **{**case.meta["label_system"], "ignored": tuple(case.meta["label_system"]["ignored"])}
    )
    file = runtime.folder / "predictions" / arm.replace(":", "-") / site / f"{case.name}.nii.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_labels(file, to_source(whole, system), source)

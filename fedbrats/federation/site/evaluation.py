"""Evaluation at a site: a quick score of the validation cases every round, every score of the test cases at the end."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.config.schema import FEDERATED, InferenceConfig
from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.families import lesions_of
from fedbrats.data.nifti import write_labels
from fedbrats.data.regions import LabelSystem, to_source
from fedbrats.federation.arms import TRIGGERED
from fedbrats.federation.site.classifying import classified_cases, score_and_loss
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.tables import Tables, step_rows, uncertainties
from fedbrats.federation.site.unseen import served
from fedbrats.files import replacing
from fedbrats.inference.locate import refine
from fedbrats.inference.predict import Prediction, predict
from fedbrats.losses.in_round import Loss, in_round
from fedbrats.metrics.score import score_case
from fedbrats.metrics.table import facts_of, worst
from fedbrats.models.build import window_of
from fedbrats.postprocess.fitting import Predicted
from fedbrats.postprocess.steps import Step, apply_steps
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.privacy.noise import secret_numbers
from fedbrats.privacy.scores import noisy_scores, patient_means
from fedbrats.runs.site_cases import pseudonym
from fedbrats.scenario.poison import with_trigger
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import loss_of
from fedbrats.tasks.segmentation import deactivate, labels_from_probabilities, targets

log = logging.getLogger(__name__)
Metrics = dict[str, float]


def quick_prediction(site: Site, case: CachedCase) -> Prediction:
    """The loaded model's own answer, without what only the final test is worth: mirrorings, passes, locating."""
    quick = replace(site.config.inference, flips=False, mc_passes=0, locate=None)
    return _prediction(site, case, quick)


def full_prediction(site: Site, case: CachedCase, triggered: bool = False) -> Prediction:
    """The loaded model's answer by everything that `inference` asks for; `triggered`: with a backdoor's trigger."""
    return _prediction(site, case, site.config.inference, triggered)


def _prediction(
    site: Site, case: CachedCase, inference: InferenceConfig, triggered: bool = False
) -> Prediction:
    image, normalise = np.asarray(case.image, np.float32), site.normalise
    site.warm.network.eval()
    options: dict[str, Any] = {
        "rules": site.parts.rules,
        "inference": inference,
        "window": window_of(site.config),
        "device": site.warm.device,
        "amp": site.warm.amp,
        "seed": site.config.seed,
    }
    image = image if normalise is None else normalise(case, image)
    if triggered:
        image = with_trigger(torch.from_numpy(image)).numpy()
    if axes := site.turned:
        return predict(site.warm.network, np.flip(image, tuple(axes)).copy(), **options).flipped(axes)
    if inference.locate is None:
        return predict(site.warm.network, image, **options)
    mask = site.localiser().whole_tumour(case)
    return refine(
        mask, image, inference.locate_crop, lambda part: predict(site.warm.network, part, **options)
    )


def _metrics(site: Site, per_case: list[list[float]], losses: list[float]) -> Metrics:
    means = np.mean(per_case, axis=0)
    named = {
        site.parts.task.reply_key(region): float(v)
        for region, v in zip(site.parts.regions, means, strict=True)
    }
    return {"num-examples": len(per_case), "loss": float(np.mean(losses)), **named}


def validate(site: Site, content: RecordDict) -> dict[str, Any]:
    """Mean of the main score per region and mean loss of the received model over the validation cases of the site.

    With `privacy.validation=noisy` they leave the federated arm with noise, the loss cut to [0, 1].
    """
    config, started = content["config"], time.perf_counter()
    arm, round_ = config["arm"], config["round"]
    site.load(content, arm, round_ + 1)
    metrics = validation_scores(site, arm, round_)
    metrics["seconds"] = time.perf_counter() - started
    return {"metrics": MetricRecord(metrics)}


def validation_scores(site: Site, arm: str, round_: int) -> Metrics:
    """The scores of `validate`, of the loaded model."""
    loss, per_case, losses = in_round(site.parts.loss, round_, site.config.rounds), [], []
    for case in site.cases.val:
        if site.parts.classifies:
            score, value = score_and_loss(site, case, loss)
            losses.append(value)
            per_case.append([loss_of(score, site.cases.labels[case.name])])
            continue
        probabilities = quick_prediction(site, case).probabilities
        truth = np.asarray(case.label)
        losses.append(_loss(loss, probabilities, truth))
        per_case.append(task.main_scores(labels_from_probabilities(probabilities), truth, site.parts.regions))
    settings = site.parts.privacy
    if isinstance(settings, DpSgd) and settings.validation == "noisy" and site.protects(arm):
        return _noisy(site, round_, per_case, losses)
    return _metrics(site, per_case, losses)


def _noisy(site: Site, round_: int, per_case: list[list[float]], losses: list[float]) -> Metrics:
    """The scores of a validation with noise that the ledger of the validation patients pays for."""
    cases, settings = site.cases, site.budget.settings
    patients = [cases.patients[case.name] for case in cases.val]
    table = np.column_stack([per_case, np.clip(losses, 0, 1)])
    assert settings.validation_sigma is not None
    site.budget.reserve_validation(round_)
    noise = secret_numbers(settings.insecure_seed, site.name, round_, "validation")
    means = noisy_scores(patient_means(table, patients), settings.validation_sigma, noise)
    return _metrics(site, [list(means[:-1])], [float(means[-1])]) | {"num-examples": len(per_case)}


def _loss(loss: Loss, probabilities: torch.Tensor, truth: np.ndarray) -> float:
    labels = torch.from_numpy(truth.copy()).unsqueeze(0).to(probabilities.device)
    with torch.inference_mode():
        logits = deactivate(probabilities.unsqueeze(0))
        return float(loss(logits, targets(labels, logits.shape[1]).float()).mean())


def test(site: Site, content: RecordDict) -> dict[str, Any]:
    """Score the received model on every test case of the site.

    The reply has the mean scores and the tables of `Tables`, under pseudonyms. A case that fails gets the worst scores
    and its reason; the others go on.
    """
    config, started = content["config"], time.perf_counter()
    parameters: list[dict[str, float]] = json.loads(config["steps"])
    steps = [
        step.with_parameters(p) if p else step for step, p in zip(site.parts.steps, parameters, strict=True)
    ]
    with served(site, content):
        metrics, tables = test_scores(site, config["arm"], config["round"], steps)
    metrics["seconds"] = time.perf_counter() - started
    return {"metrics": MetricRecord(metrics), "cases": ConfigRecord(tables.to_json())}


def test_scores(site: Site, arm: str, round_: int, steps: list[Step]) -> tuple[Metrics, Tables]:
    """The scores of `test`, of the loaded model of `round_` in `arm`, after `steps` of post-processing."""
    loss, convention = in_round(site.parts.loss, round_, site.config.rounds), site.config.metrics.convention
    if site.parts.classifies:
        mains, values, rows = classified_cases(site, loss)
        return _metrics(site, mains, values or [0.0]), Tables(rows)
    regions, per_case, losses, tables = site.parts.regions, [], [], Tables()
    for index, case in enumerate(site.cases.test):
        name = pseudonym(site.name, index)
        try:
            prediction = full_prediction(site, case, arm == TRIGGERED)
            probabilities = prediction.probabilities
            losses.append(_loss(loss, probabilities, np.asarray(case.label)))
            labels, spacing = labels_from_probabilities(probabilities), tuple(case.meta["spacing"])
            stages = apply_steps(steps, Predicted(labels, probabilities.cpu().numpy(), spacing, case.brain))
            scores, status = scored(site, arm, case, stages[-1]), "ok"
            tables.steps += step_rows(name, case, steps, stages, regions, convention)
            doubts = uncertainties(case, prediction.by_region, stages[-1], regions, tables.bins)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            log.warning("site %s: test case %s failed", site.name, name, exc_info=True)
            scores, status = worst_scores(site, case), f"failed: {site.scrub(str(error))}"
            doubts = dict.fromkeys(regions, 1.0)
        per_case.append([scores[region][task.MAIN] for region in regions])
        tables.rows += [
            {"case": name, "region": r, **scores[r], "uncertainty": doubts[r], "status": status}
            for r in regions
        ]
    return _metrics(site, per_case, losses or [0.0]), tables


def scored(site: Site, arm: str, case: CachedCase, prediction: np.ndarray) -> dict[str, dict[str, float]]:
    """Every score of `prediction` (canonical labels of the crop) by region; it is kept where the run asks for it."""
    whole, truth = restore(prediction, case), restore(np.asarray(case.label), case)
    if arm == FEDERATED:
        _save_slice(site, arm, case, prediction)
    if site.config.report.predictions:
        _save_prediction(site, arm, case, whole)
    convention, lesions = site.config.metrics.convention, lesions_of(case.meta["label_system"])
    return score_case(whole, truth, case.meta["spacing"], convention, site.parts.metrics, lesions)


def worst_scores(site: Site, case: CachedCase) -> dict[str, dict[str, float]]:
    """What a case counts that could not be predicted, by region."""
    volumes = case.meta["volumes_ml"]
    scores = worst(facts_of(site.parts.metrics, site.config.metrics.convention))
    return {r: {**scores, "volume_true_ml": volumes[r], "volume_pred_ml": 0.0} for r in task.REGIONS}


def _save_slice(site: Site, arm: str, case: CachedCase, prediction: np.ndarray) -> None:
    """Keep the axial slice with the largest true tumour, for the report's overlays; it stays in site storage."""
    truth = np.asarray(case.label)
    area = truth.astype(bool).sum(axis=(0, 1))
    z = int(area.argmax()) if area.any() else truth.shape[2] // 2
    image = case.image
    with replacing(site.storage / "slices" / arm / f"{case.name}.npz", private=True) as unfinished:
        np.savez_compressed(
            unfinished,
            t1ce=image[1, :, :, z],
            flair=image[3, :, :, z],
            truth=truth[:, :, z],
            prediction=prediction[:, :, z],
            spacing=np.asarray(case.meta["spacing"]),
        )


def _save_prediction(site: Site, arm: str, case: CachedCase, whole: np.ndarray) -> None:
    """Write the prediction beside the source: its grid, its affine, its label numbers."""
    system = LabelSystem.from_json(case.meta["label_system"])
    file = site.warm.folder / "predictions" / arm.replace(":", "-") / site.name / f"{case.name}.nii.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_labels(file, to_source(whole, system), case.source)

"""Evaluation at a site: quick Dice on the validation cases every round, every score on the test cases at the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.nifti import Source, write_labels
from fedbrats.data.regions import REGIONS, LabelSystem, regions_from_labels, to_source
from fedbrats.federation import arms
from fedbrats.federation.site_cases import pseudonym, site_folder
from fedbrats.inference import logits_to_labels, predict_logits
from fedbrats.losses import region_targets
from fedbrats.metrics.overlap import dice
from fedbrats.metrics.score import score_case, worst_scores

if TYPE_CHECKING:
    from fedbrats.federation.site import SiteRuntime

log = logging.getLogger(__name__)
Metrics = dict[str, float]


def _logits(runtime: SiteRuntime, case: CachedCase) -> torch.Tensor:
    config = runtime.config
    runtime.network.eval()
    return predict_logits(
        runtime.network,
        np.asarray(case.image),
        window=config.inference.window or config.train.patch,
        overlap=config.inference.overlap,
        batch=config.inference.batch,
        device=runtime.device,
        amp=runtime.amp,
    )


def _region_dice(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    pairs = zip(regions_from_labels(prediction), regions_from_labels(truth), strict=True)
    return [dice(p, t) for p, t in pairs]


def _metrics(per_case: list[list[float]], losses: list[float]) -> Metrics:
    means = np.mean(per_case, axis=0)
    named = {f"dice-{region.lower()}": float(v) for region, v in zip(REGIONS, means, strict=True)}
    return {"num-examples": len(per_case), "loss": float(np.mean(losses)), **named}


def validate(runtime: SiteRuntime, site: str) -> Metrics:
    """Mean Dice per region and mean loss of the loaded model over the validation cases of `site`."""
    per_case, losses = [], []
    for case in runtime.cases(site).val:
        logits = _logits(runtime, case)
        truth = np.asarray(case.label)
        losses.append(_loss(runtime, logits, truth))
        per_case.append(_region_dice(logits_to_labels(logits), truth))
    return _metrics(per_case, losses)


def _loss(runtime: SiteRuntime, logits: torch.Tensor, truth: np.ndarray) -> float:
    target = region_targets(torch.from_numpy(truth.copy()).unsqueeze(0).to(logits.device)).float()
    with torch.inference_mode():
        return float(runtime.loss(logits.unsqueeze(0), target).mean())


def test(runtime: SiteRuntime, site: str, arm: str) -> tuple[Metrics, list[dict[str, Any]]]:
    """Score the loaded model, trained in `arm`, on every test case of `site`.

    Returns:
        The metrics of the reply and one row per case and region: case (a pseudonym), region, the scores of
        `score_case`, and status. A case that fails gets the worst scores and its reason; the others go on.
    """
    per_case, losses, rows = [], [], []
    for index, case in enumerate(runtime.cases(site).test):
        try:
            logits = _logits(runtime, case)
            losses.append(_loss(runtime, logits, np.asarray(case.label)))
            scores, status = _score(runtime, site, arm, case, logits_to_labels(logits)), "ok"
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            log.warning("site %s: test case %s failed", site, pseudonym(site, index), exc_info=True)
            scores, status = _worst(runtime, case), f"failed: {runtime.scrub(site, str(error))}"
        per_case.append([scores[region]["dice"] for region in REGIONS])
        name = pseudonym(site, index)
        rows += [{"case": name, "region": r, **scores[r], "status": status} for r in REGIONS]
    return _metrics(per_case, losses or [0.0]), rows


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

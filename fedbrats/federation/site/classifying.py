"""Evaluation at a site of a network that classifies whole cases: one score per case."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from fedbrats.data.cache import CachedCase
from fedbrats.data.whole import whole_image
from fedbrats.federation.site.site import Site
from fedbrats.losses.in_round import Loss
from fedbrats.runs.site_cases import pseudonym
from fedbrats.tasks import classification as task
from fedbrats.tasks.segmentation import targets

log = logging.getLogger(__name__)


def score_and_loss(site: Site, case: CachedCase, loss: Loss) -> tuple[float, float]:
    """What the loaded network says of a case: probability of label 1, and the loss of that."""
    warm, parts = site.warm, site.parts
    warm.network.eval()
    rules = parts.rules
    image = whole_image(case, parts.patch, site.normalise, rules.planes[0], rules.crop)
    with torch.inference_mode(), torch.autocast(warm.device.type, dtype=torch.bfloat16, enabled=warm.amp):
        logits: Tensor = warm.network(image.unsqueeze(0).to(warm.device))
    logits = logits.float()
    with torch.inference_mode():
        label = torch.tensor([site.cases.labels[case.name]], device=logits.device)
        value = float(loss(logits, targets(label, task.CHANNELS).float()).mean())
    return float(logits.sigmoid()), value


def classified_cases(site: Site, loss: Loss) -> tuple[list[list[float]], list[float], list[dict[str, Any]]]:
    """Test the loaded network on every test case of the site, under pseudonyms.

    Returns:
        The main score of each case, the losses of those that could be scored, and the rows. A case that fails gets the
        worst score and its reason; the others go on.
    """
    mains, losses, rows = list[list[float]](), list[float](), list[dict[str, Any]]()
    for index, case in enumerate(site.cases.test):
        name, label = pseudonym(site.name, index), site.cases.labels[case.name]
        try:
            score, value = score_and_loss(site, case, loss)
            status = "ok"
            losses.append(value)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            log.warning("site %s: test case %s failed", site.name, name, exc_info=True)
            score, status = task.failed_score(label), f"failed: {site.scrub(str(error))}"
        mains.append([task.loss_of(score, label)])
        rows.append({"case": name, "region": task.LABEL, "score": score, "label": label, "status": status})
    return mains, losses, rows

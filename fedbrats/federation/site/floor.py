"""The floor at a site: its test cases segmented by a threshold on FLAIR and scored as those of a model are."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.config.schema import FLOOR
from fedbrats.data.brain import is_stripped
from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.federation.site.evaluation import scored, worst_scores
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.tables import Tables
from fedbrats.inference.flair_threshold import REGIONS, flair_threshold
from fedbrats.runs.site_cases import pseudonym
from fedbrats.scenario.faults import seen_by
from fedbrats.tasks import segmentation as task

log = logging.getLogger(__name__)
FLAIR = MODALITIES.index("flair")


def score_floor(site: Site, content: RecordDict) -> dict[str, Any]:
    """Score the threshold of `report.floor` on every test case of the site, by the regions that it speaks about.

    The reply is that of a test, without a loss and without an uncertainty, which a threshold has not. A case that
    fails gets the worst scores and its reason; the others go on.
    """
    started, rows, mains = time.perf_counter(), list[dict[str, Any]](), list[list[float]]()
    for index, case in enumerate(site.cases.test):
        name = pseudonym(site.name, index)
        try:
            scores, status = scored(site, FLOOR, case, _segmented(site, case)), "ok"
        except Exception as error:
            log.warning("site %s: test case %s failed", site.name, name, exc_info=True)
            scores, status = worst_scores(site, case), f"failed: {site.scrub(str(error))}"
        mains.append([scores[region][task.MAIN] for region in REGIONS])
        rows += [{"case": name, "region": r, **scores[r], "status": status} for r in REGIONS]
    means = zip(REGIONS, np.mean(mains, axis=0), strict=True)
    metrics: dict[str, Any] = {site.parts.task.reply_key(region): float(mean) for region, mean in means}
    metrics |= {"num-examples": len(mains), "seconds": time.perf_counter() - started}
    return {"metrics": MetricRecord(metrics), "cases": ConfigRecord(Tables(rows).to_json())}


def _segmented(site: Site, case: CachedCase) -> np.ndarray:
    """Labels of the crop. Raises ValueError: nobody knows where the brain is, or the site has no FLAIR."""
    if not is_stripped(case.meta["background"]):
        raise ValueError("the image is not skull-stripped, so a threshold would find scalp and fat")
    cut = site.config.report.floor
    assert cut is not None  # the site answers only where there is one
    seen = seen_by(site.config.scenario, site.name, None)
    image = case.image if seen is None else seen(case, np.asarray(case.image, np.float32))
    return flair_threshold(np.asarray(image[FLAIR]), cut)

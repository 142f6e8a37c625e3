"""Post-processing that is fitted on a site's own validation cases; only the numbers leave it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.federation.site.evaluation import full_prediction
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.unseen import served
from fedbrats.postprocess.fitting import FitCase
from fedbrats.postprocess.steps import fit_steps
from fedbrats.tasks.segmentation import labels_from_probabilities


def fit(site: Site, content: RecordDict) -> dict[str, Any]:
    """What the validation cases of the site say about every step."""
    started, cases = time.perf_counter(), site.cases.val
    with served(site, content), tempfile.TemporaryDirectory() as folder:

        def predicted() -> Iterator[FitCase]:
            """Every case once; the network runs in the first pass only."""
            for index, case in enumerate(cases):
                file = Path(folder) / f"{index}.npy"
                if not file.exists():
                    found = full_prediction(site, case).probabilities
                    np.save(file, found.cpu().numpy().astype(np.float16))
                values = np.load(file, allow_pickle=False).astype(np.float32)
                labels = labels_from_probabilities(torch.from_numpy(values))
                spacing = tuple(case.meta["spacing"])
                yield FitCase(labels, values, spacing, case.brain, truth=np.asarray(case.label))

        found = fit_steps(site.parts.steps, predicted)
    facts = {"num-examples": len(cases), "seconds": time.perf_counter() - started}
    return {"metrics": MetricRecord(facts), "fitted": ConfigRecord({"values": json.dumps(found)})}

"""Post-processing that is fitted in the federation: thresholds from each site's validation cases, their median for all.

Only the fitted numbers leave a site. The rule is nnSegNet's (Jabareen and Lukassen, BrainLes 2021), which takes the
median over the folds of a cross-validation; here the sites take the place of the folds.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedbrats.federation import record
from fedbrats.federation.asking import Request, replies_in_order
from fedbrats.federation.replies import BadReply, arrived, content_of, number_of
from fedbrats.outputs import labels_from_probabilities
from fedbrats.postprocess.fitting import FitCase
from fedbrats.postprocess.steps import Parameters, Step, check_parameters, fit_steps, median_parameters

if TYPE_CHECKING:
    from fedbrats.federation.arms import Cohort
    from fedbrats.federation.server import Federation
    from fedbrats.federation.site_runtime import SiteRuntime

MAX_TEXT = 100_000  # characters of fitted numbers, far more than any steps need


def fit_at_site(runtime: SiteRuntime, site: str) -> dict[str, Any]:
    """The site's half: the records of the reply, what its validation cases say about every step."""
    import torch

    from fedbrats.federation.site_evaluation import full_prediction

    started, cases = time.perf_counter(), runtime.cases(site).val
    with tempfile.TemporaryDirectory() as folder:

        def predicted() -> Iterator[FitCase]:
            """Every case once; the network runs in the first pass only."""
            for index, case in enumerate(cases):
                file = Path(folder) / f"{index}.npy"
                if not file.exists():
                    found = full_prediction(runtime, site, case).probabilities
                    np.save(file, found.cpu().numpy().astype(np.float16))
                values = np.load(file, allow_pickle=False).astype(np.float32)
                labels = labels_from_probabilities(torch.from_numpy(values))
                yield FitCase(labels, values, np.asarray(case.label), tuple(case.meta["spacing"]))

        found = fit_steps(runtime.steps_after, predicted)
    facts = {"num-examples": len(cases), "seconds": time.perf_counter() - started}
    return {"metrics": MetricRecord(facts), "fitted": ConfigRecord({"values": json.dumps(found)})}


def check_fit_reply(
    message: Message, registered_cases: int, steps: Sequence[Step]
) -> tuple[Parameters, float]:
    """Decode a reply of `fit_at_site`: just the values that `steps` have to fit, and its seconds.

    Raises:
        BadReply: anything else.
    """
    content = content_of(message, metrics=MetricRecord, fitted=ConfigRecord)
    if number_of(content["metrics"], "num-examples") != registered_cases:
        raise BadReply("weight differs from the registered number of validation cases")
    text = content["fitted"].get("values")
    try:
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise ValueError("no text of acceptable length")
        values = json.loads(text)
        found = [{str(key): float(number) for key, number in entry.items()} for entry in values]
        if not all(math.isfinite(number) for entry in found for number in entry.values()):
            raise ValueError("a number is not finite")
        check_parameters(steps, found)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadReply(f"fitted values cannot be used: {error}"[:300]) from error
    return found, number_of(content["metrics"], "seconds")


def fit_steps_of(
    grid: Grid, fed: Federation, cohort: Cohort, arrays: ArrayRecord, round_: int, steps: Sequence[Step]
) -> tuple[list[record.Row], Parameters, dict[str, Parameters]]:
    """The server's half: ask the sites of `cohort` and take the median.

    Returns:
        Rows of `rounds.csv`, the parameters for all, and those of each site. Nothing is asked, and all are empty,
        when no step has to be fitted.

    Raises:
        ValueError: no site has a validation case, or none gave a usable answer.
    """
    if all(step.fitted for step in steps):
        return [], [{} for _ in steps], {}
    sites = [site for site in cohort.sites if fed.members[site].val]
    config = ConfigRecord({"arm": cohort.arm, "round": round_, "split": "fit"})
    requests = [Request(cohort, s, RecordDict({"arrays": arrays, "config": config})) for s in sites]
    fed.observer.round_started(round_, len(requests))
    rows, found = [], {}
    phase = (MessageType.EVALUATE, "fit", fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        site, status, seconds = request.site, "ok", 0.0
        try:
            reply = arrived(message, fed.algorithm.timeout)
            values, seconds = check_fit_reply(reply, fed.members[site].val, steps)
            found[site] = values
        except BadReply as error:
            status = f"failed: {error}"
        rows.append(record.row(round_, cohort.arm, site, "fit", status, seconds=round(seconds, 4)))
        fed.observer.reply(cohort.arm, site, "fit", status == "ok", seconds)
    return rows, median_parameters([values for _, values in sorted(found.items())]), found


def describe_steps(
    steps: Sequence[Step], parameters: Parameters, by_site: dict[str, Parameters]
) -> list[dict[str, Any]]:
    """What `postprocess.json` says of each step of one arm: its name with its values, and where they come from."""
    described = []
    for index, (step, values) in enumerate(zip(steps, parameters, strict=True)):
        final = step.with_parameters(values) if values else step
        sites = {site: found[index] for site, found in sorted(by_site.items()) if found and found[index]}
        described.append(
            {"step": type(step).__name__, "name": final.name, "parameters": values, "sites": sites}
        )
    return described

"""Post-processing that is fitted in the federation: the server asks for each site's thresholds and takes their median.

Only the fitted numbers leave a site. The rule is nnSegNet's (Jabareen and Lukassen, BrainLes 2021), which takes the
median over the folds of a cross-validation; here the sites take the place of the folds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Question, Request, ask
from fedbrats.federation.server.replies import BadReply, content_of, number_of
from fedbrats.federation.server.state import Federation
from fedbrats.postprocess.steps import Parameters, Step, check_parameters, median_parameters
from fedbrats.runs import rounds

MAX_TEXT = 100_000  # characters of fitted numbers, far more than any steps need


@dataclass(frozen=True)
class FitReply:
    """What the validation cases of a site say about every step."""

    parameters: Parameters
    seconds: float

    def columns(self) -> dict[str, Any]:
        """Of `rounds.csv`."""
        return {"seconds": round(self.seconds, 4)}


def check_fit_reply(message: Message, registered_cases: int, steps: Sequence[Step]) -> FitReply:
    """Decode a site's reply: just the values that `steps` have to fit, and its seconds.

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
    return FitReply(found, number_of(content["metrics"], "seconds"))


def fit_steps_of(
    grid: Grid,
    fed: Federation,
    cohort: Cohort,
    arrays: Mapping[str, ArrayRecord],
    round_: int,
    steps: Sequence[Step],
) -> tuple[list[rounds.Row], Parameters, dict[str, Parameters]]:
    """Ask the sites of `cohort`, each with its model of `arrays`, and take the median.

    Returns:
        Rows of `rounds.csv`, the parameters for all, and those of each site. Nothing is asked, and all are empty,
        when no step has to be fitted.

    Raises:
        ValueError: no site has a validation case, or none gave a usable answer.
    """
    if all(step.fitted for step in steps):
        return [], [{} for _ in steps], {}
    sites = [site for site in cohort.sites if fed.members[site].val]
    config = ConfigRecord({"arm": cohort.arm, "round": round_})
    requests = [Request(cohort, s, RecordDict({"arrays": arrays[s], "config": config})) for s in sites]
    question = Question(
        questions.FIT,
        "fit",
        lambda message, request: check_fit_reply(message, fed.members[request.site].val, steps),
        counted=False,
    )
    answers = list(ask(grid, fed, question, requests, round_))
    found = {answer.request.site: answer.reply.parameters for answer in answers if answer.reply}
    median = median_parameters([values for _, values in sorted(found.items())])
    return [answer.row for answer in answers], median, found


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

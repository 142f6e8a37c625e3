"""What the sites have spent, asked once at the end of a private run: `privacy.json` and `privacy_rounds.csv`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Question, Request, ask
from fedbrats.federation.server.replies import BadReply, content_of
from fedbrats.federation.server.state import Federation
from fedbrats.files import finite, write_json
from fedbrats.privacy.accounting import Entry, final_epsilon, rdp_epsilon
from fedbrats.privacy.dp_sgd import NOT_COVERED, DpSgd
from fedbrats.privacy.ledger import PATIENT, PATIENT_ADJACENCY
from fedbrats.runs import rounds
from fedbrats.runs.privacy import ROUNDS

MAX_TEXT = 10_000_000  # characters of one site's answer
TOLERANCE = 0.01  # between the accountants of two installations
NUMBERS = ("epsilon", "epsilon_rdp", "delta", "clip", "spent_before")
COUNTS = ("steps", "rounds", "patients", "patches")
VALIDATION = {
    "exact": "Validation scores leave each site every round as they are; its validation patients are not protected.",
    "home": "No validation score leaves a site.",
    "noisy": "Validation scores leave with noise; what that spends is accounted for the validation patients.",
}


@dataclass(frozen=True)
class SpentReply:
    """What a site has spent, by its ledger."""

    values: dict[str, Any]

    def columns(self) -> dict[str, Any]:
        """Nothing of it is in `rounds.csv`."""
        return {}


def ask_spent(
    grid: Grid, fed: Federation, cohort: Cohort
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What each site of `cohort` has spent, and the reasons of those who did not say."""
    config = ConfigRecord({"arm": cohort.arm, "round": fed.finished_round})
    requests = [Request(cohort, site, RecordDict({"config": config})) for site in cohort.sites]
    used = rounds.used(fed.folder, cohort.arm)

    def checked(message: Message, request: Request) -> SpentReply:
        return SpentReply(check_spent(message, used.get(request.site, 0)))

    question = Question(questions.SPENT, "spent", checked)
    answers = list(ask(grid, fed, question, requests, fed.finished_round))
    found = {answer.request.site: answer.reply.values for answer in answers if answer.reply}
    return found, {a.request.site: str(a.row["status"]) for a in answers if a.reply is None}


def check_spent(message: Message, used: int = 0) -> dict[str, Any]:
    """Decode a site's reply and recompute its epsilon from the history it gives.

    Args:
        message: the site's reply.
        used: rounds of this run in which a reply of the site was used.

    Raises:
        BadReply: a value is missing or of another kind, epsilon is not what its history allows, or the history is
            shorter than what was used.
    """
    content = content_of(message, spent=ConfigRecord, metrics=MetricRecord)
    text = content["spent"].get("values")
    try:
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise ValueError("no text of acceptable length")
        values = json.loads(text)
        values |= {key: float(values[key]) for key in NUMBERS}
        if not all(isinstance(values[key], int) for key in COUNTS):
            raise ValueError(f"{', '.join(COUNTS)} must be whole numbers")
        entries = [Entry(*entry) for entry in values["history"]]
        again = rdp_epsilon(entries, values["delta"])
        if not math.isclose(again, values["epsilon_rdp"], rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"its history gives epsilon {again:.6g} (RDP), not {values['epsilon_rdp']:.6g}")
        least, _ = final_epsilon(entries, values["delta"])
        if not least * (1 - TOLERANCE) <= values["epsilon"] <= again * (1 + 1e-6) + 1e-9:
            raise ValueError(
                f"epsilon {values['epsilon']:.6g} is not between {least:.6g}, the least that its history allows, and "
                f"RDP's {again:.6g}"
            )
        _check_amount(values, sum(entry.steps for entry in entries), used)
        for row in values["table"]:
            row[1] = float(row[1])
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise BadReply(f"what was spent cannot be used: {error}"[:300]) from error
    return dict(values)


def _check_amount(values: Mapping[str, Any], steps: int, used: int) -> None:
    if values["rounds"] < used or values["steps"] < used:
        raise ValueError(
            f"its ledger has {values['rounds']} rounds of this run ({values['steps']} steps), but replies of {used} "
            "were used; it was deleted or replaced, and what was spent is more"
        )
    if steps < values["steps"]:
        raise ValueError(f"its history has {steps} steps, fewer than the {values['steps']} of this run")


def write_spent(
    folder: Path,
    settings: DpSgd,
    found: Mapping[str, dict[str, Any]],
    failed: Mapping[str, str],
    stopped: Mapping[str, str],
    personal: str = "",
) -> None:
    """Write `privacy.json` and `privacy_rounds.csv`.

    Args:
        folder: run folder.
        settings: of the run.
        found: `ask_spent`.
        failed: sites that did not say, with reasons.
        stopped: sites that reached their budget, with reasons.
        personal: what is to be said about the personal models, "" if there are none.
    """
    sites = {site: {k: v for k, v in values.items() if k != "table"} for site, values in found.items()}
    for site, values in sites.items():
        values["stopped"] = stopped.get(site, "")
    facts = {
        "mechanism": "dp_sgd",
        "unit": PATIENT,
        "adjacency": PATIENT_ADJACENCY,
        "insecure_seed": settings.insecure_seed,
        "validation": settings.validation,
        "public": list(settings.public),
        "not_covered": [
            *NOT_COVERED,
            VALIDATION[settings.validation],
            *([personal] if personal else []),
        ],
        "personal": personal,
        "unknown": dict(failed),
        "sites": sites,
    }
    write_json(folder / "privacy.json", finite(facts))
    rows = [(row[0], site, *row[1:], "ok") for site, values in found.items() for row in values["table"]]
    rows.sort(key=lambda row: (row[0], row[1]))
    ROUNDS.write(folder, [dict(zip(ROUNDS.columns, row, strict=True)) for row in rows])

"""What the sites have spent, asked once at the end of a private run: `privacy.json`, `privacy_rounds.csv` and more."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedbrats.environment import write_json
from fedbrats.federation import site_privacy
from fedbrats.federation.arms import Cohort
from fedbrats.federation.asking import Request, replies_in_order
from fedbrats.federation.replies import BadReply, arrived, content_of
from fedbrats.federation.site_cases import site_folder
from fedbrats.privacy.accounting import Entry, rdp_epsilon
from fedbrats.privacy.dp_sgd import NOT_COVERED, DpSgd
from fedbrats.privacy.ledger import PATIENT, PATIENT_ADJACENCY

if TYPE_CHECKING:
    from fedbrats.federation.server import Federation
    from fedbrats.federation.site_runtime import SiteRuntime

ROUND_COLUMNS = ("round", "site", "epsilon", "sigma", "sample_rate", "steps", "status")
MAX_TEXT = 10_000_000  # characters of one site's answer
NUMBERS = ("epsilon", "epsilon_rdp", "delta", "clip", "spent_before")
COUNTS = ("steps", "rounds", "patients", "patches")
VALIDATION = {
    "exact": "Validation scores leave each site every round as they are; its validation patients are not protected.",
    "home": "No validation score leaves a site.",
    "noisy": "Validation scores leave with noise; what that spends is accounted for the validation patients.",
}


def spent_at_site(runtime: SiteRuntime, site: str) -> dict[str, Any]:
    """The site's half: the records of the reply, what its ledger says."""
    started = time.perf_counter()
    values = json.dumps(_finite(site_privacy.summary(runtime, site)), allow_nan=False)
    metrics = MetricRecord({"seconds": time.perf_counter() - started})
    return {"spent": ConfigRecord({"values": values}), "metrics": metrics}


def _finite(value: Any) -> Any:
    """`value` for JSON: an infinite epsilon (no noise) travels as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def ask_spent(
    grid: Grid, fed: Federation, cohort: Cohort
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The server's half: what each site of `cohort` has spent, and the reasons of those who did not say."""
    config = ConfigRecord({"arm": cohort.arm, "round": fed.finished_round, "split": "spent"})
    requests = [Request(cohort, site, RecordDict({"config": config})) for site in cohort.sites]
    fed.observer.round_started(fed.finished_round, len(requests))
    found, failed = {}, {}
    phase = (MessageType.EVALUATE, "spent", fed.algorithm.timeout)
    for request, message in replies_in_order(grid, requests, fed.members, *phase):
        try:
            found[request.site] = check_spent(arrived(message, fed.algorithm.timeout))
        except BadReply as error:
            failed[request.site] = f"failed: {error}"
        fed.observer.reply(cohort.arm, request.site, "spent", request.site in found, 0.0)
    return found, failed


def check_spent(message: Any) -> dict[str, Any]:
    """Decode a reply of `spent_at_site` and recompute its epsilon from the history it gives.

    Raises:
        BadReply: a value is missing or of another kind, or epsilon is not what its history allows.
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
        again = rdp_epsilon([Entry(*entry) for entry in values["history"]], values["delta"])
        if not math.isclose(again, values["epsilon_rdp"], rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"its history gives epsilon {again:.6g} (RDP), not {values['epsilon_rdp']:.6g}")
        if not 0 <= values["epsilon"] <= again * (1 + 1e-6) + 1e-9:
            raise ValueError(f"epsilon {values['epsilon']:.6g} is not between 0 and RDP's {again:.6g}")
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
    write_json(folder / "privacy.json", _finite(facts))
    rows = [(row[0], site, *row[1:], "ok") for site, values in found.items() for row in values["table"]]
    _write_rows(folder / "privacy_rounds.csv", ROUND_COLUMNS, sorted(rows, key=lambda row: (row[0], row[1])))


def collect_steps(folder: Path, sites: Sequence[str]) -> None:
    """In a simulation, where all storages lie below the run: join the sites' own step files in `privacy_steps.csv`."""
    rows: list[list[str]] = []
    for site in sites:
        for file in sorted((site_folder(folder, site) / "privacy" / "steps").glob("round_*.csv")):
            with file.open(newline="") as handle:
                rows += list(csv.reader(handle))[1:]
    _write_rows(folder / "privacy_steps.csv", site_privacy.STEP_COLUMNS, rows)


def _write_rows(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(unfinished, file)

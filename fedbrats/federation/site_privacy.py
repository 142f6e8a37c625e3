"""A site's privacy budget: the plan of a run, the ledger, what a round may spend, and what is told to the server.

Everything here lies in the site's own storage, `sites/<site>/privacy`. What leaves is public: sigma, q, steps, and the
epsilon that follows from them. Gradient norms, losses and the patients drawn stay (`steps/`).
"""

from __future__ import annotations

import csv
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedbrats.federation.site_cases import site_folder
from fedbrats.privacy.accounting import BudgetError, Entry, final_epsilon, find_sigma, rdp_epsilon
from fedbrats.privacy.dp_sgd import DpSgd, private_steps
from fedbrats.privacy.ledger import PATIENT, PATIENT_ADJACENCY, Ledger
from fedbrats.privacy.mechanism import Drawn

if TYPE_CHECKING:
    from fedbrats.federation.site_runtime import SiteRuntime

STEP_COLUMNS = ("site", "round", "step", "drawn", "clipped", "norm_median", "norm_max", "loss", "clip")
ROUNDING = 1 + 1e-6  # of a budget that sigma was found for


class BudgetReached(RuntimeError):
    """A site that may not spend more: it trains no further and goes on evaluating."""


@dataclass(frozen=True)
class Plan:
    """What the site has settled on for a run, once; the ledger then holds one kind of entry for it."""

    run: str
    sigma: float
    sample_rate: float
    steps: int  # of a round
    patients: int


def storage(runtime: SiteRuntime, site: str) -> Path:
    """Folder of everything about the privacy of `site` in this run."""
    return site_folder(runtime.folder, site) / "privacy"


def settings_of(runtime: SiteRuntime, site: str) -> DpSgd:
    """The site's own settings of the mechanism."""
    assert isinstance(runtime.privacy, DpSgd)
    return runtime.privacy.of(site)


def ledger(runtime: SiteRuntime, site: str, name: str = "ledger") -> Ledger:
    """The ledger of the patients who train, or with `name` "validation" of those who validate."""
    settings = settings_of(runtime, site)
    suffix = "" if name == "ledger" else f".{name}"
    if settings.ledger is not None:
        return Ledger(Path(settings.ledger).expanduser() / f"{site}{suffix}.json", site)
    return Ledger(storage(runtime, site) / f"ledger{suffix}.json", site)


def round_steps(runtime: SiteRuntime, site: str) -> int:
    """Private steps of the site in a round."""
    patients = len(runtime.cases(site).by_patient("train"))
    return private_steps(site, patients, runtime.config.train, settings_of(runtime, site))


def plan_of(runtime: SiteRuntime, site: str, round_: int) -> Plan:
    """The plan of the run: read again, or made in the first round that asks for it.

    Raises:
        BudgetReached: what was spent before leaves nothing for any noise.
        LedgerError: the ledger cannot be read, so nobody knows what was spent.
    """
    file = storage(runtime, site) / "plan.json"
    if file.is_file():
        return Plan(**json.loads(file.read_text()))
    settings, config = settings_of(runtime, site), runtime.config
    patients = len(runtime.cases(site).by_patient("train"))
    rate, steps = settings.sample_rate(patients), round_steps(runtime, site)
    sigma = settings.sigma
    if sigma is None:
        assert settings.target_epsilon is not None
        left = steps * (config.rounds - round_ + 1)
        spent = ledger(runtime, site).entries()
        try:
            sigma = find_sigma(settings.target_epsilon, settings.delta, rate, left, spent)
        except BudgetError as error:
            raise BudgetReached(f"privacy budget: {error}") from error
    plan = Plan(uuid.uuid4().hex, float(sigma), float(rate), steps, patients)
    _write(file, json.dumps(asdict(plan), indent=1))
    return plan


def reserve(runtime: SiteRuntime, site: str, round_: int) -> tuple[Plan, float]:
    """Write the steps of round `round_` into the ledger, before any of them is taken.

    A round that is trained again, after a crash or because its reply got lost, is written again: both may have left.

    Returns:
        The plan, and epsilon (RDP) of everything in the ledger.

    Raises:
        BudgetReached: the round would spend more than the site's budget.
        LedgerError: as in `plan_of`.
    """
    plan, settings, own = plan_of(runtime, site, round_), settings_of(runtime, site), ledger(runtime, site)
    entry = Entry(plan.sigma, plan.sample_rate, plan.steps)
    _check_budget([*own.entries(), entry], settings)
    own.reserve(entry, run=plan.run, round_=round_, clip=settings.clip, patients=plan.patients)
    # Another run may have written to the same ledger in between; then this round is counted but not trained.
    return plan, _check_budget(own.entries(), settings)


def _check_budget(entries: Sequence[Entry], settings: DpSgd) -> float:
    after = rdp_epsilon(entries, settings.delta)
    if settings.budget is not None and after > settings.budget * ROUNDING:
        raise BudgetReached(
            f"privacy budget: another round would spend epsilon {after:.3g} of {settings.budget:g} "
            f"at delta {settings.delta:g}"
        )
    return after


def reserve_validation(runtime: SiteRuntime, site: str, round_: int) -> None:
    """Write one noisy release of validation scores into the ledger of the validation patients."""
    sigma = settings_of(runtime, site).validation_sigma
    assert sigma is not None
    entry = Entry(float(sigma), 1.0, 1)
    ledger(runtime, site, "validation").reserve(entry, run="", round_=round_, mechanism="validation scores")


def save_steps(runtime: SiteRuntime, site: str, round_: int, done: Sequence[Drawn]) -> None:
    """Keep what the steps of a round did, at the site; a round trained again replaces its file."""
    file = storage(runtime, site) / "steps" / f"round_{round_:05d}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished, clip = file.with_suffix(".tmp"), settings_of(runtime, site).clip
    with unfinished.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(STEP_COLUMNS)
        for index, drawn in enumerate(done, start=1):
            norms = [norm for norm in drawn.norms if np.isfinite(norm)]
            middle, largest = (float(np.median(norms)), max(norms)) if norms else ("", "")
            loss = drawn.loss if np.isfinite(drawn.loss) else ""
            writer.writerow((site, round_, index, drawn.patients, drawn.clipped, middle, largest, loss, clip))
    os.replace(unfinished, file)


def summary(runtime: SiteRuntime, site: str) -> dict[str, Any]:
    """What the site has spent, from its ledger: the values of `privacy.json`, and `rounds` for `privacy_rounds.csv`."""
    settings, own = settings_of(runtime, site), ledger(runtime, site)
    file = storage(runtime, site) / "plan.json"
    plan = Plan(**json.loads(file.read_text())) if file.is_file() else None
    records, entries = own.records(), own.entries()
    epsilon, accountant = final_epsilon(entries, settings.delta)
    mine = [plan is not None and record["run"] == plan.run for record in records]
    before = [entry for entry, is_mine in zip(entries, mine, strict=True) if not is_mine]
    rounds = [
        [record["round"], rdp_epsilon(entries[: index + 1], settings.delta), *asdict(entries[index]).values()]
        for index, (record, is_mine) in enumerate(zip(records, mine, strict=True))
        if is_mine
    ]
    checked = ledger(runtime, site, "validation").entries()
    return {
        "epsilon": epsilon,
        "epsilon_rdp": rdp_epsilon(entries, settings.delta),
        "accountant": accountant,
        "delta": settings.delta,
        "sigma": plan.sigma if plan else None,
        "sample_rate": plan.sample_rate if plan else None,
        "steps": sum(row[4] for row in rounds),
        "rounds": len(rounds),
        "clip": settings.clip,
        "patients": len(runtime.cases(site).by_patient("train")),
        "patches": settings.patches,
        "unit": PATIENT,
        "adjacency": PATIENT_ADJACENCY,
        "budget": settings.budget,
        "history": [list(asdict(entry).values()) for entry in entries],
        "spent_before": rdp_epsilon(before, settings.delta),
        "validation_epsilon": final_epsilon(checked, settings.delta)[0] if checked else None,
        "table": rounds,
    }


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(unfinished, file)

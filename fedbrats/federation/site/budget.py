"""A site's privacy budget: the plan of a run, the ledger, what a round may spend, and what is told to the server.

Everything here lies in the site's own storage. What leaves is public: sigma, q, steps, and the epsilon that follows
from them. Gradient norms, losses and the patients drawn stay (`steps/`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.config.schema import TrainConfig
from fedbrats.files import read_json, write_json
from fedbrats.privacy.accounting import BudgetError, Entry, final_epsilon, find_sigma, rdp_epsilon
from fedbrats.privacy.dp_sgd import DpSgd, private_steps
from fedbrats.privacy.ledger import PATIENT, PATIENT_ADJACENCY, Ledger, LedgerError
from fedbrats.privacy.mechanism import Drawn
from fedbrats.runs.privacy import STEPS, rounds_with_steps, write_site_steps

ROUNDING = 1 + 1e-6  # of a budget that sigma was found for
TRAINING, VALIDATION = "dp_sgd", "validation scores"  # mechanisms in the ledger


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
    before: int = 0  # entries of other runs in the ledger when it was made


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of one site in one run.

    settings: the site's own; storage: folder of everything about its privacy in this run; patients: that train;
    rounds: of the run; roles: train, val or test of every patient, by a name that tells nothing else.
    """

    site: str
    settings: DpSgd
    storage: Path
    patients: int
    train: TrainConfig
    rounds: int
    roles: Mapping[str, str] = field(default_factory=dict)

    def ledger(self) -> Ledger:
        """The one ledger of the site, for patients of every role."""
        if self.settings.ledger is None:
            return Ledger(self.storage / "ledger.json", self.site, roles=self.roles)
        return Ledger(self._vault / f"{self.site}.json", self.site, roles=self.roles)

    def hold_roles(self) -> None:
        """Write into the ledger who has which role, before anything leaves. Raises LedgerError: somebody changed it."""
        self.records()
        self.ledger().hold_roles()

    def records(self) -> list[dict[str, Any]]:
        """The reservations in the ledger.

        Raises:
            LedgerError: it cannot be read, or it knows less than the site has done in this run: it was deleted together
                with its lock, or replaced by an old copy.
        """
        own = self.ledger()
        found, plan = own.records(), self._known_plan()
        older = own.file.with_name(f"{own.file.stem}.validation.json")  # earlier versions kept these apart
        found += Ledger(older, self.site).records()
        run, before = (plan.run, plan.before) if plan else ("", 0)
        there = {record["round"] for record in found if record["run"] == run}
        missing = sorted(set(rounds_with_steps(self.storage)) - there)
        lost = before - sum(record["run"] != run for record in found)
        scores = self._scores_released() - sum(
            record["mechanism"] == VALIDATION and record["run"] == self._validation_run() for record in found
        )
        if missing or lost > 0 or scores > 0:
            what = [
                f"{len(missing)} rounds of this run whose steps were taken" if missing else "",
                f"{lost} entries of runs before it" if lost > 0 else "",
                f"{scores} validations of this run" if scores > 0 else "",
            ]
            raise LedgerError(
                f"{own.file}: knows nothing of {' and of '.join(filter(None, what))} ({self.storage}). It was deleted "
                "together with its lock, or replaced by an old copy; restore it, or the epsilon would be too small."
            )
        return found

    def rounds_counted(self) -> int:
        """Rounds of this run that are in the ledger. Raises LedgerError, as `records`."""
        plan = self._known_plan()
        return len({r["round"] for r in self.records() if plan is not None and r["run"] == plan.run})

    def entries(self, mechanism: str = TRAINING) -> list[Entry]:
        """What the patients who train have paid, or with VALIDATION those who validate. Raises LedgerError."""
        return [_entry(record) for record in self.records() if record["mechanism"] == mechanism]

    def steps(self) -> int:
        """Private steps of the site in a round."""
        return private_steps(self.site, self.patients, self.train, self.settings)

    def plan(self, round_: int) -> Plan:
        """The plan of the run: read again, or made in the first round that asks for it.

        Raises:
            BudgetReached: what was spent before leaves nothing for any noise.
            LedgerError: the ledger cannot be read, so nobody knows what was spent.
        """
        if (known := self._known_plan()) is not None:
            return known
        settings = self.settings
        rate, steps, sigma = settings.sample_rate(self.patients), self.steps(), settings.sigma
        if sigma is None:
            assert settings.target_epsilon is not None
            left = steps * (self.rounds - round_ + 1)
            sigma = self._sigma_for(rate, left)
        before = len(self.records())
        plan = Plan(uuid.uuid4().hex, float(sigma), float(rate), steps, self.patients, before)
        write_json(self._plan_file, asdict(plan), private=True)
        return plan

    def reserve(self, round_: int) -> tuple[Plan, float]:
        """Write the steps of round `round_` into the ledger, before any of them is taken.

        A round that is trained again, after a crash or because its reply got lost, is written again: both may have
        left.

        Returns:
            The plan, and epsilon (RDP) of everything in the ledger.

        Raises:
            BudgetReached: the round would spend more than the site's budget.
            LedgerError: as in `plan`.
        """
        plan = self.plan(round_)
        entry = Entry(plan.sigma, plan.sample_rate, plan.steps)
        facts: dict[str, Any] = {"clip": self.settings.clip, "patients": plan.patients}
        self._check([*self.entries(), entry])
        self.ledger().reserve(entry, run=plan.run, round_=round_, **facts)
        # Another run may have written to the same ledger in between; then this round is counted but not trained.
        return plan, self._check(self.entries())

    def reserve_validation(self, round_: int) -> None:
        """Write one noisy release of validation scores into the ledger, for the validation patients.

        Raises:
            BudgetReached: it would spend more than `validation_budget`.
            LedgerError: as in `plan`.
        """
        settings, run = self.settings, self._validation_run()
        assert settings.validation_sigma is not None
        entry, budget = Entry(float(settings.validation_sigma), 1.0, 1), settings.validation_budget
        after = final_epsilon([*self.entries(VALIDATION), entry], settings.delta)[0]
        if budget is not None and after > budget * ROUNDING:
            raise BudgetReached(
                f"privacy budget of validation: another release of scores would spend epsilon {after:.3g} of "
                f"{budget:g} at delta {settings.delta:g} (privacy.validation_epsilon)"
            )
        self.ledger().reserve(entry, run=run, round_=round_, mechanism=VALIDATION)
        write_json(self._validation_file, {"run": run, "releases": self._scores_released() + 1}, private=True)

    def record(self, round_: int, done: Sequence[Drawn]) -> None:
        """Keep what the steps of a round did, at the site; a round trained again replaces its file."""
        rows = []
        for index, drawn in enumerate(done, start=1):
            norms = [norm for norm in drawn.norms if np.isfinite(norm)]
            middle, largest = (float(np.median(norms)), max(norms)) if norms else ("", "")
            loss = drawn.loss if np.isfinite(drawn.loss) else ""
            values = (self.site, round_, index, drawn.patients, drawn.clipped, middle, largest, loss)
            rows.append(dict(zip(STEPS.columns, (*values, self.settings.clip), strict=True)))
        write_site_steps(self.storage, round_, rows)

    def summary(self) -> dict[str, Any]:
        """What was spent, by the ledger: the values of `privacy.json`, and `table` for `privacy_rounds.csv`."""
        settings, plan = self.settings, self._known_plan()
        every = self.records()
        records = [record for record in every if record["mechanism"] == TRAINING]
        entries, checked = [_entry(record) for record in records], self.entries(VALIDATION)
        epsilon, accountant = final_epsilon(entries, settings.delta)
        mine = [plan is not None and record["run"] == plan.run for record in records]
        before = [entry for entry, is_mine in zip(entries, mine, strict=True) if not is_mine]
        rounds = [
            [record["round"], rdp_epsilon(entries[: i + 1], settings.delta), *asdict(entries[i]).values()]
            for i, (record, is_mine) in enumerate(zip(records, mine, strict=True))
            if is_mine
        ]
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
            "patients": self.patients,
            "patches": settings.patches,
            "unit": PATIENT,
            "adjacency": PATIENT_ADJACENCY,
            "budget": settings.budget,
            "history": [list(asdict(entry).values()) for entry in entries],
            "spent_before": rdp_epsilon(before, settings.delta),
            "validation_epsilon": final_epsilon(checked, settings.delta)[0] if checked else None,
            "validation_budget": settings.validation_budget,
            "table": rounds,
        }

    def _sigma_for(self, rate: float, steps: int) -> float:
        """The noise with which `steps` steps reach the target, on top of what is spent; raises as `plan`."""
        settings, spent = self.settings, self.entries()
        assert settings.target_epsilon is not None
        target = (settings.target_epsilon, settings.delta, rate, steps)
        try:
            sigma = find_sigma(*target, spent)
        except BudgetError as error:
            raise BudgetReached(f"privacy budget: {error}") from error
        fresh = find_sigma(*target) if spent else sigma
        if sigma > settings.noise_limit * fresh:
            raise BudgetReached(
                f"privacy budget: epsilon {rdp_epsilon(spent, settings.delta):.3g} of {settings.target_epsilon:g} is "
                f"spent, so that the rest asks for sigma {sigma:.3g}, {sigma / fresh:.1f} times the {fresh:.3g} of a "
                f"fresh ledger (privacy.noise_limit={settings.noise_limit:g}); raise privacy.target_epsilon, take "
                "fewer rounds, or confirm that noise with a higher privacy.noise_limit"
            )
        return sigma

    @property
    def _validation_file(self) -> Path:
        return self.storage / "validated.json"

    def _validation_run(self) -> str:
        """The name under which the ledger has the validations of this run; its own, as a site may never train."""
        if not self._validation_file.is_file():
            return uuid.uuid4().hex
        return str(read_json(self._validation_file)["run"])

    def _scores_released(self) -> int:
        return int(read_json(self._validation_file)["releases"]) if self._validation_file.is_file() else 0

    @property
    def _vault(self) -> Path:
        """The folder of ledgers that outlive the run. Raises LedgerError: it follows the working directory."""
        folder = Path(str(self.settings.ledger))
        if not folder.is_absolute():
            raise LedgerError(
                f"privacy.ledger={folder}: relative, so that it would be another folder wherever the run is resumed; "
                "write the whole path into config.yaml."
            )
        return folder

    @property
    def _plan_file(self) -> Path:
        return self.storage / "plan.json"

    def _known_plan(self) -> Plan | None:
        return Plan(**read_json(self._plan_file)) if self._plan_file.is_file() else None

    def _check(self, entries: Sequence[Entry]) -> float:
        """Epsilon of `entries`. Raises BudgetReached: it is beyond the budget."""
        after = rdp_epsilon(entries, self.settings.delta)
        budget = self.settings.budget
        if budget is not None and after > budget * ROUNDING:
            raise BudgetReached(
                f"privacy budget: another round would spend epsilon {after:.3g} of {budget:g} "
                f"at delta {self.settings.delta:g}"
            )
        return after


def _entry(record: Mapping[str, Any]) -> Entry:
    return Entry(record["sigma"], record["sample_rate"], record["steps"])

"""A site's privacy budget: the plan of a run, the ledger, what a round may spend, and what is told to the server.

Everything here lies in the site's own storage. What leaves is public: sigma, q, steps, and the epsilon that follows
from them. Gradient norms, losses and the patients drawn stay (`steps/`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.config.schema import TrainConfig
from fedbrats.files import read_json, write_json
from fedbrats.privacy.accounting import BudgetError, Entry, final_epsilon, find_sigma, rdp_epsilon
from fedbrats.privacy.dp_sgd import DpSgd, private_steps
from fedbrats.privacy.ledger import PATIENT, PATIENT_ADJACENCY, Ledger, LedgerError
from fedbrats.privacy.mechanism import Drawn
from fedbrats.runs.privacy import STEPS, write_site_steps

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


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of one site in one run.

    settings: the site's own; storage: folder of everything about its privacy in this run; patients: that train;
    rounds: of the run.
    """

    site: str
    settings: DpSgd
    storage: Path
    patients: int
    train: TrainConfig
    rounds: int

    def ledger(self, name: str = "ledger") -> Ledger:
        """The ledger of the patients who train, or with `name` "validation" of those who validate."""
        suffix = "" if name == "ledger" else f".{name}"
        if self.settings.ledger is not None:
            return Ledger(self._vault / f"{self.site}{suffix}.json", self.site)
        return Ledger(self.storage / f"ledger{suffix}.json", self.site)

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
            spent = self.ledger().entries()
            try:
                sigma = find_sigma(settings.target_epsilon, settings.delta, rate, left, spent)
            except BudgetError as error:
                raise BudgetReached(f"privacy budget: {error}") from error
        plan = Plan(uuid.uuid4().hex, float(sigma), float(rate), steps, self.patients)
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
        plan, own = self.plan(round_), self.ledger()
        entry = Entry(plan.sigma, plan.sample_rate, plan.steps)
        self._check([*own.entries(), entry])
        own.reserve(entry, run=plan.run, round_=round_, clip=self.settings.clip, patients=plan.patients)
        # Another run may have written to the same ledger in between; then this round is counted but not trained.
        return plan, self._check(own.entries())

    def reserve_validation(self, round_: int) -> None:
        """Write one noisy release of validation scores into the ledger of the validation patients."""
        sigma = self.settings.validation_sigma
        assert sigma is not None
        entry = Entry(float(sigma), 1.0, 1)
        self.ledger("validation").reserve(entry, run="", round_=round_, mechanism="validation scores")

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
        settings, own, plan = self.settings, self.ledger(), self._known_plan()
        records, entries = own.records(), own.entries()
        epsilon, accountant = final_epsilon(entries, settings.delta)
        mine = [plan is not None and record["run"] == plan.run for record in records]
        before = [entry for entry, is_mine in zip(entries, mine, strict=True) if not is_mine]
        rounds = [
            [record["round"], rdp_epsilon(entries[: i + 1], settings.delta), *asdict(entries[i]).values()]
            for i, (record, is_mine) in enumerate(zip(records, mine, strict=True))
            if is_mine
        ]
        checked = self.ledger("validation").entries()
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
            "table": rounds,
        }

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

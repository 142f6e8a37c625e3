"""Client-level privacy in the round loop: the server's ledger, its noise, and what the run says about both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fedbrats.config.schema import FEDERATED
from fedbrats.federation.server.state import Federation
from fedbrats.files import write_json
from fedbrats.privacy.accounting import EXACT, Entry, final_epsilon
from fedbrats.privacy.central import Central, PrivateMean
from fedbrats.privacy.ledger import Ledger
from fedbrats.privacy.noise import secret_numbers
from fedbrats.runs.privacy import CENTRAL_ROUNDS

UNIT, ADJACENCY = "site", "the updates of one site replaced by nothing; how many sites reply is public"
NOT_COVERED = (
    "The unit is the whole site: who it protects from is everybody but the server, which sees every site's update.",
    "Training losses, validation scores and the scores of the final test leave each site exactly.",
    "Norms of the updates and of their mean before the noise, in this report, are the server's own and not released.",
    "Choosing settings by trying several (hyper-parameter search) spends privacy that no ledger counts.",
)


class CentralPrivacy:
    """What `state.ServerPrivacy` promises, for one run."""

    def __init__(self, settings: Central, folder: Path, finished: int) -> None:
        """`finished`: rounds that a resumed run has behind it."""
        self.settings, self.folder = settings, folder
        self.ledger = Ledger(
            folder / "privacy" / "server_ledger.json", "server", unit=UNIT, adjacency=ADJACENCY
        )
        self._keep(finished)

    def epsilon(self, more: int = 0) -> float:
        """Epsilon of every release in the ledger and `more` to come."""
        spent = [*self.ledger.entries(), *([Entry(self.settings.sigma, 1.0, more)] if more else [])]
        return final_epsilon(spent, self.settings.delta)[0]  # exact, as no release is sampled

    def begin(self, fed: Federation, round_: int) -> None:
        """Stop every site when the round would spend more than the budget."""
        budget = self.settings.max_epsilon
        if budget is not None and self.epsilon(1) > budget:
            reason = f"privacy budget: round {round_} would spend epsilon {self.epsilon(1):.3g} of {budget:g}"
            fed.stopped |= {site: reason for c in fed.cohorts if c.arm == FEDERATED for site in c.sites}

    def collect(self, arrays: Mapping[str, Tensor]) -> PrivateMean:
        """What collects the replies to the model `arrays`."""
        return PrivateMean(arrays, self.settings)

    def release(self, mean: PrivateMean, round_: int) -> None:
        """Account for a release, then add its noise to `mean`."""
        self.ledger.reserve(
            Entry(self.settings.sigma, 1.0, 1), run=self.folder.name, round_=round_, mechanism="central"
        )
        noise = secret_numbers(self.settings.insecure_seed, "server", round_)
        facts = mean.finish(noise)
        row = {"round": round_, **facts, "epsilon": self.epsilon(), "status": "ok"}
        CENTRAL_ROUNDS.append(self.folder, [{name: row.get(name, "") for name in CENTRAL_ROUNDS.columns}])

    def _keep(self, finished: int) -> None:
        """Begin the table of rounds, or keep of an old one what is not computed again."""
        rows = CENTRAL_ROUNDS.rows(self.folder) if finished else []
        CENTRAL_ROUNDS.write(self.folder, [row for row in rows if int(row["round"]) <= finished])

    def write(self, fed: Federation) -> None:
        """Write `privacy.json`."""
        rows = CENTRAL_ROUNDS.rows(self.folder)
        swamped = [r["round"] for r in rows if float(r["noise_norm"]) > float(r["mean_update_norm"])]
        sentence = (
            f"In {len(swamped)} of {len(rows)} rounds the noise was longer than the mean update itself: the model has "
            "learned from noise more than from the sites. With so few sites central privacy cannot train a network of "
            "this size; protect the patients instead (privacy=dp_sgd)."
        )
        facts = {
            "mechanism": "central",
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "epsilon": self.epsilon(),
            "delta": self.settings.delta,
            "sigma": self.settings.sigma,
            "clip": self.settings.clip,
            "rounds": sum(entry.steps for entry in self.ledger.entries()),
            "accountant": EXACT,
            "sites_asked": sum(len(c.sites) for c in fed.cohorts if c.arm == FEDERATED),
            "insecure_seed": self.settings.insecure_seed,
            "not_covered": list(NOT_COVERED),
            "swamped": sentence if swamped else "",
            "stopped": next(iter(fed.stopped.values()), ""),
        }
        write_json(self.folder / "privacy.json", facts)

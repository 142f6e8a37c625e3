"""What a run wrote about its differential privacy, read and checked; nothing of it for a run without.

An epsilon that cannot be read in full is an error, never a smaller epsilon or none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.runs.privacy import CENTRAL_ROUNDS, ROUNDS, STEPS
from fedbrats.runs.reading import RunFolderError, Values, natural, number, read_json

PRIVACY_FILE = "privacy.json"
PATIENT, CENTRAL = "dp_sgd", "central"  # mechanisms: noise at the sites, noise at the server


@dataclass(frozen=True, kw_only=True)
class SiteBudget:
    """What one institution spent. `sigma`, `sample_rate` (q) and `clip` (C) are None where it never trained.

    `epsilon` by `accountant`, `epsilon_rdp` beside it, both of everything in the ledger; `spent_before` (RDP) of what
    was in it before this run. `history`: (sigma, q, steps), enough to compute the epsilon again. The scores that left
    with noise have spent `validation_epsilon` of `validation_budget` for those who validate; None where none may leave.
    """

    site: str
    epsilon: float
    epsilon_rdp: float
    accountant: str
    delta: float
    sigma: float | None
    sample_rate: float | None
    clip: float | None
    patients: int
    patches: int
    steps: int
    rounds: int
    budget: float | None
    stopped: str
    spent_before: float
    validation_epsilon: float | None
    validation_budget: float | None
    history: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, kw_only=True)
class CentralBudget:
    """What differential privacy at the server spent, with the site as the unit."""

    epsilon: float
    accountant: str
    delta: float
    sigma: float
    clip: float
    rounds: int
    sites_asked: int
    stopped: str
    swamped: str


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """`privacy.json`: what both mechanisms have in common, and `sites` (by name) or `central`.

    `insecure_seed` is the seed that makes the noise reproducible, "" for noise that nobody can reproduce. `unknown`:
    institutions that did not say what they spent, with reasons. `faults`: where the numbers told less than was done
    and were made larger, in sentences.
    """

    mechanism: str
    unit: str
    adjacency: str
    insecure_seed: str
    public: tuple[str, ...]
    not_covered: tuple[str, ...]
    personal: str
    sites: tuple[SiteBudget, ...]
    unknown: tuple[tuple[str, str], ...]
    central: CentralBudget | None
    faults: tuple[str, ...] = ()

    @property
    def epsilon(self) -> float:
        """The largest epsilon of a site; infinite where that of a site is unknown or no site is listed."""
        if self.central is not None:
            return self.central.epsilon
        if self.unknown:
            return math.inf
        return max((site.epsilon for site in self.sites), default=math.inf)


def asks_for_privacy(config: dict[str, Any]) -> bool:
    """Whether a run was configured to be private."""
    group = config.get("privacy")
    return isinstance(group, dict) and bool(group.get("_target_"))


def read_privacy(folder: Path) -> Privacy | None:
    """`privacy.json` of a run folder, None without that file.

    Raises:
        RunFolderError: it cannot be read, or a value is missing, no number, or negative.
    """
    file = folder / PRIVACY_FILE
    found = read_json(file)
    if found is None:
        return None
    content = Values(found, str(file))
    mechanism = content.text("mechanism")
    if mechanism not in (PATIENT, CENTRAL):
        raise RunFolderError(f"{file}: mechanism is {mechanism!r}, expected {PATIENT} or {CENTRAL}")
    if mechanism == PATIENT:
        content.there("sites")  # nobody may take a file without epsilons for one that spent nothing
    sites = content.mapping("sites", of="sites") if mechanism == PATIENT else {}
    seed, unknown = content.there("insecure_seed"), content.mapping("unknown", of="sites")
    return Privacy(
        mechanism=mechanism,
        unit=content.text("unit"),
        adjacency=content.text("adjacency"),
        insecure_seed="" if seed is None else str(seed),
        public=content.texts("public"),
        not_covered=content.texts("not_covered"),
        personal=content.said("personal"),
        sites=tuple(
            _site(name, Values(sites[name], f"{file}: site {name}")) for name in sorted(sites, key=natural)
        ),
        unknown=tuple((name, str(reason)) for name, reason in unknown.items()),
        central=_central(content) if mechanism == CENTRAL else None,
    )


def _site(name: str, values: Values) -> SiteBudget:
    history = values.values.get("history")
    if not isinstance(history, list) or any(not isinstance(row, list) or len(row) != 3 for row in history):
        raise RunFolderError(f"{values.where}: history must be a list of [sigma, sample_rate, steps]")
    rows = [[number(value, f"{values.where}: history") for value in row] for row in history]
    return SiteBudget(
        site=name,
        epsilon=values.number("epsilon"),
        epsilon_rdp=values.number("epsilon_rdp"),
        accountant=values.text("accountant"),
        delta=values.number("delta"),
        sigma=values.optional("sigma"),
        sample_rate=values.optional("sample_rate"),
        clip=values.optional("clip"),
        patients=values.whole("patients"),
        patches=values.whole("patches"),
        steps=values.whole("steps"),
        rounds=values.whole("rounds"),
        budget=values.optional("budget"),
        stopped=values.said("stopped"),
        spent_before=values.number("spent_before"),
        validation_epsilon=values.optional("validation_epsilon"),
        validation_budget=values.optional("validation_budget")
        if "validation_budget" in values.values
        else None,
        history=tuple((sigma, rate, int(steps)) for sigma, rate, steps in rows),
    )


def _central(values: Values) -> CentralBudget:
    return CentralBudget(
        epsilon=values.number("epsilon"),
        accountant=values.text("accountant"),
        delta=values.number("delta"),
        sigma=values.number("sigma"),
        clip=values.number("clip"),
        rounds=values.whole("rounds"),
        sites_asked=values.whole("sites_asked"),
        stopped=values.said("stopped"),
        swamped=values.said("swamped"),
    )


def read_rounds(folder: Path) -> pd.DataFrame:
    """`privacy_rounds.csv`: round, site, epsilon (RDP, of the whole ledger after the round), sigma, ..., status.

    Raises:
        RunFolderError: it cannot be read.
    """
    return ROUNDS.read(folder)


def read_steps(folder: Path) -> pd.DataFrame:
    """`privacy_steps.csv`: what each private step did, by site, round and step; without rows outside a simulation.

    Raises:
        RunFolderError: it cannot be read.
    """
    steps = STEPS.read(folder)
    return steps.sort_values(["site", "round", "step"], kind="stable").reset_index(drop=True)


def read_central_rounds(folder: Path) -> pd.DataFrame:
    """`central_rounds.csv`: what the server clipped and how much noise it added, by round.

    Raises:
        RunFolderError: it cannot be read.
    """
    return CENTRAL_ROUNDS.read(folder)

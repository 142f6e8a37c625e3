"""What a run wrote about its differential privacy, read and checked; nothing of it for a run without.

An epsilon that cannot be read in full is an error, never a smaller epsilon or none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.report.run_folder import RunFolderError, natural, optional_table, read_json

PRIVACY_FILE = "privacy.json"
PATIENT, CENTRAL = "dp_sgd", "central"  # mechanisms: noise at the sites, noise at the server
ROUND_NUMBERS = ("round", "epsilon", "sigma", "sample_rate", "steps")
STEP_NUMBERS = ("round", "step", "drawn", "clipped", "norm_median", "norm_max", "loss", "clip")
CENTRAL_NUMBERS = (
    *("round", "replies", "clipped", "update_norm_median"),
    *("mean_update_norm", "noise_norm", "epsilon"),
)


@dataclass(frozen=True, kw_only=True)
class SiteBudget:
    """What one institution spent. `sigma`, `sample_rate` (q) and `clip` (C) are None where it never trained.

    `epsilon` by `accountant`, `epsilon_rdp` beside it, both of everything in the ledger; `spent_before` (RDP) of what
    was in it before this run. `history`: (sigma, q, steps), enough to compute the epsilon again.
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
    institutions that did not say what they spent, with reasons.
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
    if not file.is_file():
        return None
    content = _Reader(read_json(file, []), str(file))
    mechanism = content.text("mechanism")
    if mechanism not in (PATIENT, CENTRAL):
        raise RunFolderError(f"{file}: mechanism is {mechanism!r}, expected {PATIENT} or {CENTRAL}")
    sites = content.mapping("sites") if mechanism == PATIENT else {}
    seed, unknown = content.there("insecure_seed"), content.values.get("unknown") or {}
    if not isinstance(unknown, dict):
        raise RunFolderError(f"{file}: unknown must be a mapping of sites")
    return Privacy(
        mechanism=mechanism,
        unit=content.text("unit"),
        adjacency=content.text("adjacency"),
        insecure_seed="" if seed is None else str(seed),
        public=content.texts("public"),
        not_covered=content.texts("not_covered"),
        personal=str(content.values.get("personal") or ""),
        sites=tuple(
            _site(name, _Reader(sites[name], f"{file}: site {name}")) for name in sorted(sites, key=natural)
        ),
        unknown=tuple((str(name), str(reason)) for name, reason in unknown.items()),
        central=_central(content) if mechanism == CENTRAL else None,
    )


def _site(name: str, values: _Reader) -> SiteBudget:
    history = values.values.get("history")
    if not isinstance(history, list) or any(not isinstance(row, list) or len(row) != 3 for row in history):
        raise RunFolderError(f"{values.where}: history must be a list of [sigma, sample_rate, steps]")
    rows = [[_number(value, f"{values.where}: history") for value in row] for row in history]
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
        stopped=str(values.values.get("stopped") or ""),
        spent_before=values.number("spent_before"),
        validation_epsilon=values.optional("validation_epsilon"),
        history=tuple((sigma, rate, int(steps)) for sigma, rate, steps in rows),
    )


def _central(values: _Reader) -> CentralBudget:
    return CentralBudget(
        epsilon=values.number("epsilon"),
        accountant=values.text("accountant"),
        delta=values.number("delta"),
        sigma=values.number("sigma"),
        clip=values.number("clip"),
        rounds=values.whole("rounds"),
        sites_asked=values.whole("sites_asked"),
        stopped=str(values.values.get("stopped") or ""),
        swamped=str(values.values.get("swamped") or ""),
    )


@dataclass(frozen=True)
class _Reader:
    """Values of a JSON object with errors that say where they are."""

    values: dict[str, Any]
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            raise RunFolderError(f"{self.where}: expected a JSON object")

    def there(self, key: str) -> Any:
        if key not in self.values:
            raise RunFolderError(f"{self.where}: {key} is missing")
        return self.values[key]

    def number(self, key: str) -> float:
        return _number(self.there(key), f"{self.where}: {key}")

    def optional(self, key: str) -> float | None:
        return None if self.there(key) is None else self.number(key)

    def whole(self, key: str) -> int:
        value = self.number(key)
        if not value.is_integer():
            raise RunFolderError(f"{self.where}: {key} must be a whole number, not {value}")
        return int(value)

    def text(self, key: str) -> str:
        value = self.there(key)
        if not isinstance(value, str) or not value:
            raise RunFolderError(f"{self.where}: {key} must be text, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key) or []
        if not isinstance(value, list):
            raise RunFolderError(f"{self.where}: {key} must be a list")
        return tuple(str(item) for item in value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.there(key)
        if not isinstance(value, dict):
            raise RunFolderError(f"{self.where}: {key} must be a mapping of sites")
        return {str(name): part for name, part in value.items()}


def _number(value: Any, where: str) -> float:
    """A number that may be infinite (no noise; JSON holds it as text), never NaN or negative."""
    if value == "inf":
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise RunFolderError(f"{where} must be a number of at least 0, not {value!r}")
    return float(value)


def read_rounds(folder: Path) -> pd.DataFrame:
    """`privacy_rounds.csv`: round, site, epsilon (RDP, of the whole ledger after the round), sigma, ..., status.

    Raises:
        RunFolderError: it cannot be read.
    """
    return optional_table(folder / "privacy_rounds.csv", ("site", "status"), ROUND_NUMBERS)


def read_steps(folder: Path) -> pd.DataFrame:
    """`privacy_steps.csv`: what each private step did, by site, round and step; without rows outside a simulation.

    Raises:
        RunFolderError: it cannot be read.
    """
    steps = optional_table(folder / "privacy_steps.csv", ("site",), STEP_NUMBERS)
    return steps.sort_values(["site", "round", "step"], kind="stable").reset_index(drop=True)


def read_central_rounds(folder: Path) -> pd.DataFrame:
    """`central_rounds.csv`: what the server clipped and how much noise it added, by round.

    Raises:
        RunFolderError: it cannot be read.
    """
    return optional_table(folder / "central_rounds.csv", ("status",), CENTRAL_NUMBERS)

"""What a run says that it has spent, held against the rounds that it used and the ledgers beside it: the largest wins.

The server compares when it asks; this is for a `privacy.json` or a ledger that has changed since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedbrats.data.sentences import plural
from fedbrats.files import read_json
from fedbrats.privacy.accounting import Entry, final_epsilon, rdp_epsilon
from fedbrats.privacy.ledger import Ledger, LedgerError
from fedbrats.runs import rounds
from fedbrats.runs.privacy_files import CentralBudget, Privacy, SiteBudget, read_privacy
from fedbrats.runs.site_cases import site_folder

ARM = "federated"  # the one that is private
TRAINING = "dp_sgd"  # mechanism of the ledger's entries that those who train have paid


def read_spent(folder: Path, config: Mapping[str, Any]) -> Privacy | None:
    """`read_privacy`, with every number that is too small made larger and said in `faults`.

    Args:
        folder: of the run.
        config: of the run; its `privacy.ledger` says where the ledgers are.

    Raises:
        RunFolderError: as `read_privacy`.
    """
    privacy = read_privacy(folder)
    if privacy is None:
        return None
    used = rounds.used(folder, ARM)
    if privacy.central is not None:
        central, faults = _central(privacy.central, _aggregated(folder))
        return replace(privacy, central=central, faults=tuple(faults))
    sites, faults = [], []
    for site in privacy.sites:
        found, said = _site(folder, (config.get("privacy") or {}).get("ledger"), site, used.get(site.site, 0))
        sites.append(found)
        faults += said
    silent = sorted(
        used.keys() - {site.site for site in privacy.sites} - {name for name, _ in privacy.unknown}
    )
    unknown = [(name, f"{plural(used[name], 'round')} of it were used") for name in silent]
    return replace(privacy, sites=tuple(sites), unknown=(*privacy.unknown, *unknown), faults=tuple(faults))


def _site(folder: Path, vault: str | None, told: SiteBudget, used: int) -> tuple[SiteBudget, list[str]]:
    """The budget with what is missing in it, and what is wrong."""
    held, steps, faults = _in_ledger(folder, vault, told, used)
    listed = sum(row[2] for row in told.history)
    if told.rounds < max(used, held):
        faults.append(
            f"{told.site}: privacy.json tells of {plural(told.rounds, 'round')}, but {used} were used by rounds.csv"
            f"{f' and {held} are in its ledger' if held else ''}"
        )
    elif listed < told.steps:
        faults.append(f"{told.site}: privacy.json lists {listed} of {told.steps} steps")
    real = max(told.rounds, used, held)
    each = math.ceil(told.steps / told.rounds) if told.rounds else 0
    real_steps = max(told.steps, steps, each * real)
    lacks = max(real_steps - told.steps, real_steps - listed)
    if lacks <= 0 and real == told.rounds:
        return told, [f"{fault}." for fault in faults]
    if told.sigma is None or told.sample_rate is None or not real_steps:
        more = replace(told, epsilon=math.inf, epsilon_rdp=math.inf, rounds=real)
    else:
        row = (told.sigma, told.sample_rate, lacks)
        more = _with_history(replace(told, rounds=real, steps=real_steps), (*told.history, row))
    return more, [f"{fault}; epsilon is that of the larger number." for fault in faults]


def _with_history(told: SiteBudget, history: tuple[tuple[float, float, int], ...]) -> SiteBudget:
    entries = [Entry(*row) for row in history]
    epsilon, accountant = final_epsilon(entries, told.delta)
    if epsilon > told.epsilon:
        told = replace(told, epsilon=epsilon, accountant=accountant)
    rdp = max(told.epsilon_rdp, rdp_epsilon(entries, told.delta))
    return replace(told, epsilon_rdp=rdp, history=history)


def _in_ledger(folder: Path, vault: str | None, told: SiteBudget, used: int) -> tuple[int, int, list[str]]:
    """Rounds and steps of this run in the site's ledger, where it lies with the run, and what is wrong with it."""
    storage = site_folder(folder, told.site) / "privacy"
    file = storage / "ledger.json" if vault is None else Path(vault) / f"{told.site}.json"
    plan, ledger = storage / "plan.json", Ledger(file, told.site)
    if not plan.is_file() or (vault is not None and not Path(vault).is_dir()):
        return 0, 0, []  # the site is deployed, or its ledger lies on another machine
    try:
        run = read_json(plan)["run"]
        mine = [r for r in ledger.records() if r["run"] == run and r["mechanism"] == TRAINING]
    except (LedgerError, OSError, ValueError, KeyError, TypeError):
        return (
            0,
            0,
            [f"{told.site}: its ledger cannot be read, or has lost entries (`fedbrats audit` says what)"],
        )
    held, most = len(mine), max(told.rounds, used)
    short = f"{told.site}: its ledger holds {plural(held, 'round')} of this run, but {most} were trained"
    return held, sum(r["steps"] for r in mine), [short] if held < most else []


def _aggregated(folder: Path) -> int:
    """Rounds in which the server has made a model of the sites' updates."""
    rows = rounds.TABLE.rows(folder)
    return len({r["round"] for r in rows if (r["arm"], r["phase"], r["status"]) == (ARM, "round", "ok")})


def _central(told: CentralBudget, used: int) -> tuple[CentralBudget, Sequence[str]]:
    if told.rounds >= used:
        return told, ()
    epsilon, accountant = final_epsilon([Entry(told.sigma, 1.0, used)], told.delta)
    fault = f"privacy.json tells of {plural(told.rounds, 'round')}, but {used} were released by rounds.csv"
    more = replace(told, rounds=used, epsilon=max(epsilon, told.epsilon), accountant=accountant)
    return more, [f"{fault}; epsilon is that of the larger number."]

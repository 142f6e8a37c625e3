"""Differential privacy in words and rows: everything that a reviewer needs to compute the epsilons again."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from fedbrats.data.sentences import plural
from fedbrats.report.cells import MISSING, Cell, short
from fedbrats.report.epsilon import EMPTY, WEAK, band, epsilon_text, of_budget
from fedbrats.report.words import listed
from fedbrats.runs.privacy_files import CentralBudget, Privacy, SiteBudget
from fedbrats.runs.reading import natural

SAID_OF_BAND = {"weak": "weak", "empty": "practically nothing"}
MEANING = (
    "Epsilon and delta bound what anyone can learn about one {unit} from everything that was released: any result is "
    "at most exp(epsilon) times as likely with that {unit} as without, plus delta, and the other way round."
)


def privacy_sentences(privacy: Privacy, arms: Collection[str]) -> list[str]:
    """What was protected, against whom, and by how much.

    Args:
        privacy: of the run.
        arms: trained arms that have results, "local" for all local ones.
    """
    if privacy.central is not None:
        return _central_sentences(privacy, privacy.central, arms)
    out = [
        "Every training institution runs DP-SGD of its own: a step draws each of its N patients with probability q, "
        "averages the gradients of K patches of a patient, clips this average to norm C, sums over the drawn patients, "
        "adds Gaussian noise of deviation sigma C to the sum and divides by q N; only what this leaves is sent.",
        f"Unit: one {privacy.unit}. Neighbouring data: {privacy.adjacency}.",
        MEANING.format(unit=privacy.unit),
    ]
    if privacy.sites:
        worst = max(privacy.sites, key=lambda site: site.epsilon)
        known = " known" if privacy.unknown else ""
        out.append(
            f"The largest{known} epsilon of an institution is {epsilon_text(worst.epsilon)} at delta {worst.delta:g} "
            f"({worst.site}). A patient belongs to one institution and every institution has a mechanism of its own, "
            "so these guarantees do not add up (parallel composition): each patient has that of their own institution."
        )
    out += [
        f"{site.site} stopped training: {site.stopped.rstrip('.')}." for site in privacy.sites if site.stopped
    ]
    out += [
        f"The noisy validation scores of {site.site} have spent epsilon "
        f"{of_budget(site.validation_epsilon, site.validation_budget)} for its validation patients; a release that "
        "would spend more does not leave."
        for site in privacy.sites
        if site.validation_budget is not None
    ]
    if privacy.public:
        out.append(f"Declared public, and fitted on the patients without noise: {', '.join(privacy.public)}.")
    return [*out, *_personal(privacy), *_references(arms)]


def _central_sentences(privacy: Privacy, central: CentralBudget, arms: Collection[str]) -> list[str]:
    return [
        "In every round the server clips the update of each site to norm C, sums them with equal weights, adds "
        "Gaussian noise of deviation sigma C to the sum and divides by their number. No gain from drawing sites is "
        "claimed.",
        f"Unit: one {privacy.unit}. Neighbouring data: {privacy.adjacency}.",
        MEANING.format(unit=privacy.unit),
        f"Epsilon is {epsilon_text(central.epsilon)} at delta {central.delta:g}. It holds against everyone who sees "
        "the global models; the server itself sees each update as it is, before the noise.",
        *([f"Training stopped: {central.stopped.rstrip('.')}."] if central.stopped else []),
        *_personal(privacy),
        *_references(arms),
    ]


def _personal(privacy: Privacy) -> list[str]:
    """What is said about the personal models, unless it is said below the numbers."""
    return [privacy.personal] if privacy.personal and privacy.personal not in privacy.not_covered else []


def _references(arms: Collection[str]) -> list[str]:
    plain = [arm for arm in ("pooled", "local") if arm in arms]
    if not plain:
        return []
    models = listed(plain)
    return [f"The {models} models are references trained without noise: nothing said here holds for them."]


def warnings(privacy: Privacy) -> list[str]:
    """Which epsilons are worth little or nothing, and why."""
    if privacy.central is not None:
        central = privacy.central
        why = f"{plural(central.rounds, 'round')} at sigma {short(central.sigma)}, and every site in every round"
        worth = [_worth(band(central.epsilon), "The run", central.epsilon, why)]
        return [*filter(None, worth), *([central.swamped] if central.swamped else [])]
    return [
        *filter(
            None, (_worth(band(site.epsilon), site.site, site.epsilon, _why(site)) for site in privacy.sites)
        )
    ]


def _worth(kind: str, who: str, epsilon: float, why: str) -> str:
    if not kind:
        return ""
    said = (
        f"is above {EMPTY:g}: formally it promises practically nothing"
        if kind == "empty"
        else f"is above {WEAK:g}: a weak formal guarantee"
    )
    odds = f" (a factor of {math.exp(epsilon):.2g})" if epsilon < 700 else ""  # exp(710) is no float64
    return f"{who}: epsilon {epsilon_text(epsilon)}{odds} {said}. Why: {why}."


def _why(site: SiteBudget) -> str:
    people = plural(site.patients, "patient")
    if site.sigma is None or site.sample_rate is None:
        return "all of it was spent before this run"
    if site.sample_rate >= 1:
        drawn = f"{people}, q = 1: everyone is in every step, so that drawing at random hides nobody"
    else:
        drawn = (
            f"{people}, q = {short(site.sample_rate)}: each is in {100 * site.sample_rate:.0f} % of the steps"
        )
    before = f"; {epsilon_text(site.spent_before)} was spent before this run" if site.spent_before > 0 else ""
    return f"{drawn}; {plural(site.steps, 'step')} at sigma {short(site.sigma)}{before}"


def site_rows(privacy: Privacy, rounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Printable rows of the table of budgets, one per institution.

    Args:
        privacy: of the run.
        rounds: result of `read_rounds`, which says after which round an institution stopped.
    """
    last = rounds[rounds["status"] == "ok"].groupby("site")["round"].max()
    return [
        {
            "site": site.site,
            "patients": f"N = {plural(site.patients, 'patient')}",
            "band": band(site.epsilon),
            "worth": SAID_OF_BAND.get(band(site.epsilon), ""),
            "epsilon": Cell(
                epsilon_text(site.epsilon), f"{site.accountant}; RDP {epsilon_text(site.epsilon_rdp)}"
            ),
            "texts": [
                f"{site.delta:g}",
                short(site.sigma),
                short(site.sample_rate),
                short(site.clip),
                f"{site.patches}",
                f"{site.steps}",
                f"{site.rounds}",
                "none" if site.budget is None else epsilon_text(site.budget),
                epsilon_text(site.spent_before),
                _stopped(site, last.get(site.site)),
            ],
            "validation": of_budget(site.validation_epsilon, site.validation_budget),
        }
        for site in privacy.sites
    ]


def _stopped(site: SiteBudget, last: float | None) -> str:
    if not site.stopped:
        return "no"
    return "before any round" if last is None else f"after round {last:.0f}"


def recompute_lines(privacy: Privacy) -> list[str]:
    """What to give to an accountant: for each institution the steps in its ledger, with every digit."""
    out = []
    for site in privacy.sites:
        parts: dict[tuple[float, float], int] = {}
        for sigma, rate, steps in site.history:
            parts[sigma, rate] = parts.get((sigma, rate), 0) + steps
        spent = "; ".join(
            f"{steps} steps, sigma {sigma!r}, q {rate!r}" for (sigma, rate), steps in parts.items()
        )
        out.append(f"{site.site}: delta {site.delta:g}: {spent or 'nothing spent'}")
    return out


def central_row(central: CentralBudget, rounds: pd.DataFrame) -> dict[str, str]:
    """Printable numbers of differential privacy at the server.

    Args:
        central: the budget.
        rounds: result of `read_central_rounds`.
    """
    replies = rounds["replies"].sum()
    clipped = f"{100 * rounds['clipped'].sum() / replies:.1f} %" if replies else MISSING
    return {
        "Epsilon": f"{epsilon_text(central.epsilon)} ({central.accountant})",
        "Delta": f"{central.delta:g}",
        "Sigma": short(central.sigma),
        "C": short(central.clip),
        "Rounds": f"{central.rounds}",
        "Sites": f"{central.sites_asked}",
        "Clipped updates": clipped,
    }


def step_rows(steps: pd.DataFrame) -> list[dict[str, str]]:
    """Printable rows of what the private steps did, one per institution.

    Args:
        steps: result of `read_steps`.
    """
    rows = []
    for site in sorted(set(steps["site"]), key=natural):
        part = steps[steps["site"] == site]
        drawn, empty = part["drawn"].sum(), int((part["drawn"] == 0).sum())
        rows.append(
            {
                "site": site,
                "steps": f"{len(part)}",
                "mean": short(drawn / len(part)),
                "empty": f"{empty}",
                "clipped": f"{100 * part['clipped'].sum() / drawn:.1f} %" if drawn else MISSING,
                "median": short(part["norm_median"].median()),
                "largest": short(part["norm_max"].max()),
                "clip": _range(part["clip"].dropna().tolist()),
            }
        )
    return rows


def _range(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    low, high = min(values), max(values)
    return short(low) if low == high else f"{short(low)} to {short(high)}"

"""How an epsilon is said, and what it is worth."""

from __future__ import annotations

import math

from fedbrats.report.cells import MISSING

WEAK, EMPTY = 10.0, 50.0  # epsilon above which the formal guarantee is weak, and practically nothing
NO_EPSILON = "privacy.json is missing although the run was to be private: no epsilon can be stated."


def epsilon_text(epsilon: float | None) -> str:
    """Two decimals, none above 100, "infinite" without any noise."""
    if epsilon is None or math.isnan(epsilon):
        return MISSING
    return "infinite" if math.isinf(epsilon) else f"{epsilon:.{0 if epsilon >= 100 else 2}f}"


def of_budget(spent: float | None, budget: float | None) -> str:
    """What noisy scores have spent, "2.00 of 3.30"; a dash where none may leave."""
    if budget is None:
        return epsilon_text(spent)
    return f"{epsilon_text(spent or 0.0)} of {epsilon_text(budget)}"


def band(epsilon: float) -> str:
    """How much the guarantee is worth: "" (a guarantee), "weak" or "empty"."""
    return "empty" if epsilon > EMPTY else "weak" if epsilon > WEAK else ""

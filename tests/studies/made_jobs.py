"""Jobs of a sweep made by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from fedbrats.studies.jobs import Job

FEDAVG, FEDPROX = "fedbrats.algorithms.fedavg.FedAvg", "fedbrats.algorithms.fedprox.FedProx"


def job(
    name: str,
    seed: int,
    dice: dict[str, dict[str, float]],
    epsilon: float = math.inf,
    personal: str = "",
    strategy: str = FEDAVG,
    **settings: Any,
) -> Job:
    """A finished job: Dice of WT by arm and case of site A; the mean of an arm is its Dice over all test cases."""
    cases = pd.DataFrame(
        [
            {"arm": arm, "site": "A", "case": case, "region": "WT", "dice": value}
            for arm, values in dice.items()
            for case, value in values.items()
        ]
    )
    table = cases.groupby(["arm", "region"], as_index=False)["dice"].mean().assign(site="all")
    known: dict[str, Any] = {"seed": seed, "strategy._target_": strategy, **settings}
    if personal:
        known["personalization._target_"] = f"fedbrats.personalization.x.{personal}"
    return Job(name, known, table, "captk", "finished", "", True, epsilon=epsilon, cases=cases)

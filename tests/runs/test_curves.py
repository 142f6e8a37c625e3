"""How validation rose in a run, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from fedbrats.runs import rounds
from fedbrats.runs.curves import curve_of
from fedbrats.studies.jobs import cost_to


def told(folder: Path, clock: bool = True) -> pd.DataFrame:
    """Three rounds of two sites with 4 and 6 steps, 1 MB each way and site; validated in rounds 1 and 3."""
    rounds.start(folder, 0)
    for number, dice in ((1, 0.5), (2, None), (3, 0.8)):
        rows = [
            rounds.row(number, "federated", site, "train", steps=steps, bytes_down=1e6, bytes_up=1e6)
            for site, steps in (("A", 4), ("B", 6))
        ]
        rows.append(rounds.row(number, "federated", "C", "train", "failed: no reply", bytes_down=1e6))
        scores = {} if dice is None else {"dice_wt": dice, "dice_tc": dice, "dice_et": dice}
        rows.append(
            rounds.row(number, "federated", "server", "round", hours=2.5 * number if clock else "", **scores)
        )
        rows.append(rounds.row(number, "local:A", "server", "round", **scores))
        rounds.append(folder, rows)
    rounds.append(folder, [rounds.row(3, "federated", "A", "test", bytes_down=9e6)])  # after the last round
    return rounds.read_rounds(folder)


def test_steps_bytes_and_hours_add_up(tmp_path: Path) -> None:
    curve = curve_of(told(tmp_path))
    assert set(curve["arm"]) == {"federated"}  # local models have one each
    assert curve[["round", "in_a_row", "together", "mb", "hours"]].values.tolist() == [
        [1, 6, 10, 5, 2.5],
        [3, 18, 30, 15, 7.5],
    ]
    assert curve["dice_tc"].tolist() == [0.5, 0.8]


def test_what_it_cost_until_validation_had_nearly_its_last_value(tmp_path: Path) -> None:
    curve = curve_of(told(tmp_path))
    assert (cost_to(curve, "mb"), cost_to(curve, "hours")) == (15, 7.5)
    assert cost_to(curve, "mb", share=0.6) == 5
    (tmp_path / "none").mkdir()
    assert math.isnan(cost_to(curve_of(told(tmp_path / "none", clock=False)), "hours"))
    assert math.isnan(cost_to(curve.iloc[:0], "mb"))

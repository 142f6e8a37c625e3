"""Two pooled arms beside each other: as many steps as all sites together, and as many as one of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedbrats.commands.run.run import run
from fedbrats.report.html import write_report
from fedbrats.runs.rounds import read_rounds
from tests.report.test_html import text_of
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.slow
def test_both_are_trained_tested_and_told_apart(cache: Path, tmp_path: Path) -> None:
    """Three sites of 2 steps: 6 and 2 in a round. What one run has trained, another takes over, both arms."""
    more = ("arms=[federated,pooled]", "train.pooled_steps=both", "rounds=1")
    folder = run(tiny(cache, *more), tmp_path / "run")
    rows = read_rounds(folder)
    trained = rows[rows["phase"] == "train"].groupby("arm")["steps"].max()
    assert trained.to_dict() == {"federated": 2, "pooled": 6, "pooled_in_a_row": 2}
    cases = pd.read_csv(folder / "cases.csv")
    by_arm = {arm: set(part["case"]) for arm, part in cases.groupby("arm")}
    assert by_arm["pooled"] == by_arm["pooled_in_a_row"] == by_arm["federated"]
    page = text_of(write_report(folder).read_text())
    assert "The pooled model that had only as many steps in a row as the federation" in page
    taken = run(tiny(cache, *more, f"run.baselines={folder}", "strategy=fedavgm"), tmp_path / "other")
    again = pd.read_csv(taken / "cases.csv")
    for arm in ("pooled", "pooled_in_a_row"):
        mine = [table[table["arm"] == arm].reset_index(drop=True) for table in (cases, again)]
        pd.testing.assert_frame_equal(*mine)

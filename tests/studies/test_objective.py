"""What a search goes by."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedbrats.config.objective import ObjectiveConfig
from fedbrats.runs import rounds
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.studies.objective import objective
from tests.report.fake_extras import site_budget, write_privacy
from tests.report.fake_run import write_run

# Validation Dice of WT, TC, ET of sites A (3 cases) and B (1 case) in two rounds; round 1 is better over all cases.
SCORES = {1: {"A": (0.9, 0.8, 0.7), "B": (0.5, 0.3, 0.1)}, 2: {"A": (0.7, 0.7, 0.7), "B": (0.6, 0.5, 0.4)}}


def a_run(folder: Path, select: str = "best", arm: str = "federated", **config: object) -> RunFolder:
    write_run(folder, sites=["A", "B"], sizes=[12, 12], unseen=[], rounds=1, arms=(arm.split(":")[0],))
    rows = []
    for number, sites in SCORES.items():
        for site, dice in sites.items():
            row = rounds.row(number, arm, site, "val", cases=3 if site == "A" else 1)
            rows.append(row | dict(zip(("dice_wt", "dice_tc", "dice_et"), dice, strict=True)))
        means = [(3 * a + b) / 4 for a, b in zip(sites["A"], sites["B"], strict=True)]
        row = rounds.row(number, arm, rounds.SERVER, "round")
        rows.append(row | dict(zip(("dice_wt", "dice_tc", "dice_et"), means, strict=True)))
    rounds.TABLE.write(folder, rows)
    file = folder / "config.yaml"
    file.write_text(
        yaml.safe_dump({**yaml.safe_load(file.read_text()), "report": {"select": select}, **config})
    )
    return read_run(folder)


@pytest.mark.parametrize(
    ("select", "settings", "worth"),
    [
        ("best", {}, (3 * 0.8 + 0.3) / 4),  # round 1: .675; round 2: .65
        ("last", {}, (3 * 0.7 + 0.5) / 4),
        ("best", {"score": "worst_site"}, 0.3),  # of the selected round, though round 2 has .5
        ("last", {"score": "worst_site"}, 0.5),
        ("best", {"region": "ET"}, (3 * 0.7 + 0.1) / 4),
        ("last", {"region": "WT", "score": "worst_site"}, 0.6),
    ],
)
def test_it_is_the_validation_score_of_the_selected_round(
    select: str, settings: dict[str, str], worth: float, tmp_path: Path
) -> None:
    assert objective(a_run(tmp_path / "run", select), ObjectiveConfig(**settings)) == pytest.approx(worth)


def test_a_run_that_spends_too_much_is_worth_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", privacy={"_target_": "x.DpSgd", "target_epsilon": 8.0})
    write_privacy(run.path, {"A": site_budget(9, 7.5), "B": site_budget(9, 7.9)})
    spent = {limit: objective(run, ObjectiveConfig(max_epsilon=limit)) for limit in (7.6, 8.5)}
    assert spent == {7.6: 0.0, 8.5: pytest.approx(0.675)}


def test_a_run_without_a_score_says_what_to_set(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    rounds.TABLE.write(run.path, [rounds.row(1, "federated", rounds.SERVER, "round")])
    with pytest.raises(RunFolderError, match=r"set partition\.val .* privacy\.validation"):
        objective(read_run(run.path), ObjectiveConfig())
    with pytest.raises(RunFolderError, match="no model of all sites"):
        objective(a_run(tmp_path / "local", arm="local:A"), ObjectiveConfig())

"""From replies to cases.csv and summary.json: nothing is dropped, and the percentages are those of the hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fedbrats.commands.run.summary import KEPT, arms_summary, write_summary
from fedbrats.data.partition import Site
from fedbrats.data.regions import REGIONS
from fedbrats.federation.server import results
from fedbrats.federation.server.replies import EvaluateReply
from fedbrats.metrics.table import VOLUMES
from fedbrats.runs import rounds
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.taking_part import TABLE as TAKING_PART
from tests.scored import CASE_COLUMNS, SCORES, facts

CONVENTION = "brats2023"
SITES = [
    Site("A", False, ("x",), (), ("Brats18_A_1", "Brats18_A_2")),
    Site("B", False, ("y",), (), ("Brats18_B_9",)),
]


def reply(site: str, dice: list[float], without: int | None = None) -> EvaluateReply:
    """Every test case of `site` with its Dice in all regions, or one case left out."""
    rows = [
        {
            **dict.fromkeys((*SCORES, *VOLUMES), 0.5),
            **{"case": f"{site}#{index:04d}", "region": region, "dice": value, "status": "ok"},
        }
        for index, value in enumerate(dice)
        for region in REGIONS
        if index != without
    ]
    return EvaluateReply(len(dice), 0.5, dict.fromkeys(REGIONS, 0.5), 1.0, rows)


def test_rows_have_the_real_names_and_every_column() -> None:
    rows = results.case_rows(
        "federated", SITES, {"A": reply("A", [0.1, 0.2]), "B": reply("B", [0.3])}, facts(CONVENTION)
    )
    assert len(rows) == 3 * 3
    assert [(r["site"], r["case"], r["dice"]) for r in rows if r["region"] == "TC"] == [
        ("A", "Brats18_A_1", 0.1),
        ("A", "Brats18_A_2", 0.2),
        ("B", "Brats18_B_9", 0.3),
    ]
    for row in rows:
        assert set(row) == set(CASE_COLUMNS)
        assert row["arm"] == "federated"


def test_a_site_that_did_not_answer_is_all_failed_rows() -> None:
    rows = results.case_rows("federated", SITES, {"B": reply("B", [0.3])}, facts(CONVENTION))
    silent = [r for r in rows if r["site"] == "A"]
    assert len(silent) == 2 * 3
    for row in silent:
        assert set(row) == set(CASE_COLUMNS)
        assert row["status"] == "failed: the site did not answer"
        assert (row["dice"], row["hd95"], row["lesion_dice"], row["lesion_hd95"]) == (0, 374, 0, 374)


def test_a_case_that_was_left_out_is_a_failed_row() -> None:
    rows = results.case_rows(
        "federated", SITES[:1], {"A": reply("A", [0.1, 0.2], without=0)}, facts(CONVENTION)
    )
    assert [r["status"] for r in rows] == ["failed: no result for this case"] * 3 + ["ok"] * 3


def test_a_site_cannot_answer_for_another_one() -> None:
    foreign = EvaluateReply(1, 0.5, dict.fromkeys(REGIONS, 0.5), 1.0, reply("A", [1.0, 1.0]).rows)
    rows = results.case_rows("federated", SITES, {"B": foreign}, facts(CONVENTION))
    assert len(rows) == 9
    assert {r["status"] != "ok" for r in rows} == {True}


def test_what_a_reply_adds_does_not_reach_the_file() -> None:
    rows = [{**row, "arm": "pooled", "site": "B", "patient": "Smith"} for row in reply("A", [0.1, 0.2]).rows]
    answer = EvaluateReply(2, 0.5, dict.fromkeys(REGIONS, 0.5), 1.0, rows)
    for row in results.case_rows("federated", SITES[:1], {"A": answer}, facts(CONVENTION)):
        assert set(row) == set(CASE_COLUMNS)
        assert (row["arm"], row["site"]) == ("federated", "A")


def all_rows() -> list[dict[str, Any]]:
    """Dice of the cases A1, A2, B9 by model; the model of A is 0.9 and 0.7 at home and 0.1 elsewhere."""
    scores = {
        "federated": ([0.8, 0.6], [0.4]),
        "pooled": ([1.0, 0.6], [0.8]),
        "local:A": ([0.9, 0.7], [0.1]),
        "local:B": ([0.2, 0.0], [0.5]),
    }
    rows = []
    for arm, (a, b) in scores.items():
        rows += results.case_rows(arm, SITES, {"A": reply("A", a), "B": reply("B", b)}, facts(CONVENTION))
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return arms_summary(rows, facts(CONVENTION), CONVENTION)


def test_percent_of_pooled_by_hand() -> None:
    """Means over the three cases: federated 1.8 / 2.4 = 75 %, local (0.9 + 0.7 + 0.5) / 2.4 = 87.5 %.

    Elsewhere (0.2 + 0 + 0.1) / 2.4 = 12.5 %.
    """
    found = summary(all_rows())["percent_of_pooled"]
    assert found.keys() == {"federated", "local", "local_elsewhere"}
    for region in REGIONS:
        assert found["federated"][region] == pytest.approx(75)
        assert found["local"][region] == pytest.approx(87.5)
        assert found["local_elsewhere"][region] == pytest.approx(12.5)


def test_percent_is_taken_on_the_cases_an_arm_has() -> None:
    """Without a local model at B, local is compared on A's cases: 1.6 / 1.6 = 100 %."""
    found = summary([r for r in all_rows() if r["arm"] != "local:B"])["percent_of_pooled"]
    assert found["local"]["WT"] == pytest.approx(100)
    assert found["federated"]["WT"] == pytest.approx(75)


def test_a_failed_site_weighs_on_the_mean_and_on_the_percentage() -> None:
    """Federated without B: (0.8 + 0.6 + 0) / 2.4 = 58.33 %, HD95 at B the 374 mm of the convention."""
    rows = results.case_rows("federated", SITES, {"A": reply("A", [0.8, 0.6])}, facts(CONVENTION))
    rows += [r for r in all_rows() if r["arm"] == "pooled"]
    found = summary(rows)
    assert found["percent_of_pooled"]["federated"]["ET"] == pytest.approx(100 * 1.4 / 2.4)
    federated = found["arms"]["federated"]
    assert (federated["all"]["ET"]["dice"]["n"], federated["all"]["ET"]["dice"]["failed"]) == (3, 1)
    assert federated["all"]["ET"]["dice"]["mean"] == pytest.approx(1.4 / 3)
    assert federated["sites"]["B"]["ET"]["hd95"]["mean"] == 374


def test_without_a_pooled_arm_or_with_one_that_is_all_zero_there_is_no_percentage() -> None:
    assert summary([r for r in all_rows() if r["arm"] != "pooled"])["percent_of_pooled"] == {}
    zero = [{**r, "dice": 0.0} if r["arm"] == "pooled" else r for r in all_rows()]
    assert summary(zero)["percent_of_pooled"] == {}


def test_local_models_at_home_and_elsewhere_by_hand() -> None:
    """Home: 0.9, 0.7 at A and 0.5 at B. Elsewhere: A's model on B9 0.1; B's model on A1 and A2 0.2 and 0."""
    arms = summary(all_rows())["arms"]
    assert arms.keys() == {"federated", "pooled", "local", "local_elsewhere"}
    home, away = arms["local"]["all"]["WT"]["dice"], arms["local_elsewhere"]["all"]["WT"]["dice"]
    assert (home["n"], home["mean"]) == (3, pytest.approx(0.7))
    assert (away["n"], away["mean"]) == (3, pytest.approx(0.1))
    assert arms["local"]["sites"]["B"]["WT"]["dice"]["mean"] == pytest.approx(0.5)
    assert arms["local_elsewhere"]["sites"]["B"]["WT"]["dice"]["mean"] == pytest.approx(0.1)
    assert (home["worst_site"], home["worst_mean"]) == ("B", pytest.approx(0.5))
    assert home.keys() == set(KEPT)
    json.dumps(arms, allow_nan=False)


def test_several_local_models_on_one_case_count_as_their_mean() -> None:
    held = [Site("HELD", True, (), (), ("Brats18_H_1",))]
    rows = []
    for arm, value in (("local:A", 0.2), ("local:B", 0.6)):
        rows += results.case_rows(arm, held, {"HELD": reply("HELD", [value])}, facts(CONVENTION))
    away = summary(rows)["arms"]["local_elsewhere"]["all"]["TC"]["dice"]
    assert (away["n"], away["mean"]) == (1, pytest.approx(0.4))


def test_cases_csv_holds_every_row(tmp_path: Path) -> None:
    cases_table(SCORES).write(tmp_path, all_rows())
    with (tmp_path / "cases.csv").open(newline="") as handle:
        reader = csv.DictReader(handle)
        assert tuple(reader.fieldnames or ()) == CASE_COLUMNS
        assert len(list(reader)) == 4 * 3 * 3


def test_summary_counts_bytes_and_failed_replies(tmp_path: Path) -> None:
    rounds.start(tmp_path, 0)
    rows = [
        rounds.row(1, "federated", "A", "train", bytes_down=100, bytes_up=90, seconds=1.5),
        rounds.row(1, "federated", "B", "train", "failed: no reply", bytes_down=100),
        rounds.row(1, "federated", "server", "round", bytes_down=200, bytes_up=90, seconds=9.0),
        rounds.row(1, "federated", "A", "val", bytes_down=100, bytes_up=0, seconds=0.5),
        rounds.row(1, "local:A", "A", "train", bytes_down=0, bytes_up=0, seconds=2.0),
        rounds.row(2, "federated", "A", "test", "failed: site error", bytes_down=100),
    ]
    rounds.append(tmp_path, rows)
    write_summary(tmp_path, "finished", rounds=2)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["status"], written["rounds"]) == ("finished without B (since round 1)", 2)
    assert [row["site"] for row in TAKING_PART.rows(tmp_path)] == ["A", "B"]
    assert written["bytes"] == {"federated": {"down": 400, "up": 90}, "local:A": {"down": 0, "up": 0}}
    assert written["failed_replies"] == [
        {"round": 1, "arm": "federated", "site": "B", "phase": "train", "reason": "failed: no reply"},
        {"round": 2, "arm": "federated", "site": "A", "phase": "test", "reason": "failed: site error"},
    ]
    assert written["seconds"] == {"test": 0.0, "train": 3.5, "val": 0.5}


def test_sites_called_like_numbers_or_missing_values_keep_their_names(tmp_path: Path) -> None:
    rounds.start(tmp_path, 0)
    rows = [
        rounds.row(1, "federated", site, "train", "failed: x", bytes_down=1) for site in ("1", "NA", "007")
    ]
    rounds.append(tmp_path, rows)
    write_summary(tmp_path, "finished")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [reply["site"] for reply in written["failed_replies"]] == ["1", "NA", "007"]


def test_the_round_that_is_tested() -> None:
    assert results.selected_round(3, 10, "best") == 3
    assert results.selected_round(3, 10, "last") == 10
    assert results.selected_round(0, 10, "best") == 10  # never validated

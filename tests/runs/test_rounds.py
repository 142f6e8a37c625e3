"""rounds.csv: every row whole, in the promised columns, and a resume begins where its checkpoint ended."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fedbrats.runs import rounds
from fedbrats.tasks import segmentation as task


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def write_rounds(folder: Path, last: int) -> None:
    rounds.start(folder, 0)
    for round_ in range(1, last + 1):
        rows = [
            rounds.row(round_, "federated", "A", "train", cases=3, loss=0.5, bytes_up=123456),
            rounds.row(round_, "federated", "server", "round", "failed: too few, with a comma\nand a line"),
        ]
        rounds.append(folder, rows)


def test_columns_are_the_promised_ones(tmp_path: Path) -> None:
    rounds.start(tmp_path, 0)
    assert (tmp_path / "rounds.csv").read_text().strip() == (
        "round,arm,site,phase,status,cases,steps,loss,dice_wt,dice_tc,dice_et,seconds,bytes_down,bytes_up,hours"
    )


def test_what_is_not_given_stays_empty_and_an_unknown_column_is_refused() -> None:
    row = rounds.row(
        1, "federated", "A", "val", **task.SEGMENTATION.round_columns({"WT": 0.9, "TC": 0.8, "ET": 0.7})
    )
    assert (row["status"], row["dice_wt"], row["dice_tc"], row["dice_et"]) == ("ok", 0.9, 0.8, 0.7)
    assert row["loss"] == ""
    with pytest.raises(KeyError, match="dise"):
        rounds.row(1, "federated", "A", "val", dise=0.9)


def test_rows_come_back_with_commas_and_line_breaks(tmp_path: Path) -> None:
    write_rounds(tmp_path, 1)
    rows = read(tmp_path / "rounds.csv")
    assert [r["site"] for r in rows] == ["A", "server"]
    assert rows[1]["status"] == "failed: too few, with a comma\nand a line"


def test_a_resume_keeps_what_its_checkpoint_covers(tmp_path: Path) -> None:
    file = tmp_path / "rounds.csv"
    write_rounds(tmp_path, 3)
    rounds.append(tmp_path, [rounds.row(2, "federated", "A", "test")])
    before = read(file)
    rounds.start(tmp_path, 2)
    assert read(file) == before[:4]  # the test at the end is done again
    rounds.append(tmp_path, [rounds.row(3, "federated", "A", "train")])
    assert [r["round"] for r in read(file)] == ["1", "1", "2", "2", "3"]


def test_a_run_from_the_start_keeps_nothing(tmp_path: Path) -> None:
    write_rounds(tmp_path, 3)
    rounds.start(tmp_path, 0)
    assert read(tmp_path / "rounds.csv") == []


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    """Cut at every byte of round 12's rows, also after its first digit, which then reads as round 1."""
    file = tmp_path / "rounds.csv"
    write_rounds(tmp_path, 11)
    whole = file.read_bytes()
    write_rounds(tmp_path, 12)
    full = file.read_bytes()
    expected = [r for r in read(file) if int(r["round"]) <= 11]
    for end in range(len(whole), len(full)):
        file.write_bytes(full[:end])
        rounds.start(tmp_path, 11)
        assert read(file) == expected, full[len(whole) : end]

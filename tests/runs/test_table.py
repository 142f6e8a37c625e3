"""One definition of a file's columns: what is written is read, by name, whatever else stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.table import Table

TABLE = Table("t.csv", ("site", "round", "loss"), text=("site",), needed=("site", "round"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    TABLE.write(tmp_path, [{"site": "NA", "round": 1, "loss": 0.1}])
    TABLE.append(tmp_path, [{"site": "007", "round": 2}])
    frame = TABLE.read(tmp_path)
    assert frame["site"].tolist() == ["NA", "007"]
    assert frame["round"].tolist() == [1.0, 2.0]
    assert frame["loss"].isna().tolist() == [False, True]


def test_a_column_nobody_knows_stays_and_one_that_is_not_needed_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("round,mood,site\n3,good,A\n")
    frame = TABLE.read(tmp_path)
    assert frame.to_dict("records") == [
        {"round": 3.0, "mood": "good", "site": "A", "loss": pytest.approx(float("nan"), nan_ok=True)}
    ]


def test_a_needed_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("site,loss\nA,1\n")
    with pytest.raises(RunFolderError, match=r"t\.csv: columns missing: round"):
        TABLE.read(tmp_path)


def test_an_unknown_column_is_not_written_and_the_file_stays(tmp_path: Path) -> None:
    TABLE.write(tmp_path, [{"site": "A", "round": 1}])
    before = (tmp_path / "t.csv").read_bytes()
    with pytest.raises(ValueError, match="mood"):
        TABLE.write(tmp_path, [{"site": "A", "round": 1}, {"site": "B", "mood": "bad"}])
    assert (tmp_path / "t.csv").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_without_the_file_there_are_no_rows_but_every_column(tmp_path: Path) -> None:
    missing: list[str] = []
    frame = TABLE.read(tmp_path, missing)
    assert list(frame.columns) == ["site", "round", "loss"]
    assert len(frame) == 0
    assert missing == ["t.csv is missing."]
    assert TABLE.rows(tmp_path) == []


def test_a_line_cut_by_a_kill_is_left_out_and_said(tmp_path: Path) -> None:
    TABLE.write(tmp_path, [{"site": "A", "round": 1}, {"site": "B", "round": 12}])
    whole = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "t.csv").write_bytes(whole[:-4])
    missing: list[str] = []
    assert TABLE.read(tmp_path, missing)["site"].tolist() == ["A"]
    assert "was not written completely" in missing[0]

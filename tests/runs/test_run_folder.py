"""Reading a run folder: what is missing is named, what is broken is an error with the file's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedbrats.runs.reading import RunFolderError, natural
from fedbrats.runs.run_folder import read_run
from tests.report.fake_run import SITES, UNSEEN, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", rounds=3)


def test_finished_run_lacks_nothing(folder: Path) -> None:
    run = read_run(folder)
    assert run.missing == ()
    assert run.finished
    assert run.convention == "brats2023"
    assert run.sites == [*SITES, UNSEEN]  # held-out institutions last
    assert run.holdout == {UNSEEN}


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"config\.yaml is missing"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("summary.json", '{"status": "fin', "not readable as JSON"),
        ("partition.json", "[]", "expected a JSON object"),
        ("config.yaml", "a: [1", "not readable as YAML"),
        ("config.yaml", "- 1\n", "expected a mapping"),
        ("cases.csv", "arm,site\na,b\n", "columns missing: case"),
        ("rounds.csv", b"\xff\xfe\n", "not readable as CSV"),
    ],
)
def test_broken_file_is_named(folder: Path, name: str, content: str | bytes, said: str) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunFolderError, match=said) as error:
        read_run(folder)
    assert str(folder / name) in str(error.value)


def test_word_in_a_number_column_names_line_and_column(folder: Path) -> None:
    lines = (folder / "cases.csv").read_text().splitlines()
    cells = lines[4].split(",")
    cells[4] = "high"
    (folder / "cases.csv").write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:], ""]))
    with pytest.raises(RunFolderError, match="line 5, column dice: 'high'"):
        read_run(folder)


def test_killed_run_is_read_without_its_half_line(folder: Path) -> None:
    (folder / "summary.json").unlink()
    (folder / "cases.csv").unlink()
    text = (folder / "rounds.csv").read_bytes()
    lines = text.splitlines(keepends=True)
    (folder / "rounds.csv").write_bytes(b"".join(lines[:10]) + lines[10][:-7])
    run = read_run(folder)
    assert len(run.rounds) == 9  # ten lines with the header; the eleventh is cut off
    said = " ".join(run.missing)
    for part in (
        "last line of rounds.csv",
        "cases.csv is missing",
        "did not finish: last recorded round 1 of 3",
    ):
        assert part in said


def test_case_without_all_regions_is_left_out_and_said(folder: Path) -> None:
    lines = (folder / "cases.csv").read_text().splitlines()
    (folder / "cases.csv").write_text("\n".join([*lines[:-1], ""]))
    run = read_run(folder)
    assert len(run.cases) == len(lines) - 1 - 3
    assert any("1 scored case(s) in cases.csv lack a region" in text for text in run.missing)


def test_institution_names_stay_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", sites=["10", "2", "NA"], sizes=[6, 6, 6], unseen=(), rounds=2)
    run = read_run(folder)
    assert run.sites == ["2", "10", "NA"]
    assert set(run.cases["site"]) == {"2", "10", "NA"}


def test_failed_status_has_its_reason(folder: Path) -> None:
    (folder / "summary.json").write_text(json.dumps({"status": "failed: out of memory"}))
    run = read_run(folder)
    assert not run.finished
    assert run.status == "failed: out of memory"


def test_natural_order_survives_odd_digits() -> None:
    assert sorted(["site²", "site10", "site2"], key=natural)[0] == "site2"

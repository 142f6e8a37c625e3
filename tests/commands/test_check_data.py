"""The command that checks a folder: what it prints and how it exits."""

import os
from pathlib import Path

import pytest

from fedbrats.commands.check_data import main
from tests.data.brats_files import write_case
from tests.data.hostile_files import HOSTILE, written

REAL = os.environ.get("FEDBRATS_REAL_DATA")


def check_data(*arguments: str) -> int:
    return main(["runtime.workers=0", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Brats18_TCIA02_135_1", "BraTS19_TCIA02_606_1", "BraTS19_CBICA_AAB_1"):
        write_case(tmp_path / "data", name)
    return tmp_path / "data"


def test_sound_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_data("data=brats", f"data.root={folder}") == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line.split("│")[2:5] for line in out.splitlines() if "│" in line}
    assert [int(cell) for cell in rows["TCIA02"]] == [2, 0, 0]
    assert [int(cell) for cell in rows["CBICA"]] == [1, 0, 0]
    assert "3 cases, 2 institutions" in out
    assert "label numbers: BraTS 2017 to 2021 (NCR 1, ED 2, ET 4) by the names of 3 cases" in out
    assert "Errors: 0, warnings: 0." in out


def test_broken_file_is_named_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "BraTS19_TCIA02_606_1" / "BraTS19_TCIA02_606_1_t2.nii.gz"
    path.write_bytes(b"")
    assert check_data(f"data.root={folder}") == 1
    out = capsys.readouterr().out
    assert f"error: {path}: empty file (0 bytes)" in out
    assert "Errors: 1, warnings: 0." in out


def test_case_without_institution(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(folder, "UPENN-GBM-00006_11")
    assert check_data(f"data.root={folder}") == 1
    out = capsys.readouterr().out
    assert "(no institution)" in out
    assert "UPENN-GBM-00006_11; list them in partition.table" in out
    table = tmp_path / "t.csv"
    table.write_text("case,institution\nUPENN-GBM-00006_11,UPENN\n")
    assert check_data(f"data.root={folder}", f"partition.table={table}") == 0
    assert "4 cases, 3 institutions" in capsys.readouterr().out
    assert check_data(f"data.root={folder}", "partition.unknown=rest") == 0
    assert check_data(f"data.root={folder}", "partition=iid", "partition.sites=2") == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.rot=x"], "data.rot"),
        (["data.labels=x"], "data.labels=x: choose one of auto, brats2021"),
        (["data=brats"], "data.root"),
        (["data.root=nowhere"], "nowhere: no such folder"),
        (["partition=fets", "data.root={folder}"], "partition.table"),
        (["partition.table=gone.csv", "data.root={folder}"], "gone.csv"),
    ],
)
def test_unusable_commands_exit_with_2(folder: Path, capsys, overrides: list[str], words: str) -> None:
    assert check_data(*(text.format(folder=folder) for text in overrides)) == 2
    assert words in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_real_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "upenn.csv"
    table.write_text("case,institution\nUPENN-GBM-00006_11,UPENN\n")
    assert check_data("data=brats", f"data.root={REAL}/brats", f"partition.table={table}") == 0
    out = capsys.readouterr().out
    assert "8 cases, 5 institutions" in out
    assert "BraTS 2017 to 2021 (NCR 1, ED 2, ET 4) by the names of 7 cases" in " ".join(out.split())
    assert "UPENN-GBM (NCR 1, ED 2, ET 4) by the names of 1 case" in " ".join(out.split())


def test_every_hostile_volume_is_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, bad = tmp_path / "data", []
    for number, kind in enumerate(HOSTILE):
        name = f"Brats18_TCIA02_{number:03d}_1"
        bad.append(written(kind, write_case(root, name, seed=1000 + 10 * number) / f"{name}_flair.nii.gz"))
    write_case(root, "BraTS19_CBICA_AAB_1")
    write_case(tmp_path / "outside", "BraTS19_CBICA_AAC_1")
    (root / "linked").symlink_to(tmp_path / "outside")
    assert check_data(f"data.root={root}") == 1
    out = capsys.readouterr().out
    assert all(f"error: {file}: " in out for file in (*bad, root / "linked"))
    assert f"Errors: {len(bad) + 1}, warnings: 0." in out
    assert check_data(f"data.root={root}", "data.links=follow", "data.max_voxels=503") == 1
    assert "504 voxels, more than data.max_voxels=503" in capsys.readouterr().out

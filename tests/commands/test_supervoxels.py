"""The command that cuts cases into supervoxels: files on the grid of the case, a table, and refusals by key."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.commands.supervoxels import main
from fedbrats.metrics.achievable import achievable_accuracy
from tests.commands.predict.small_cases import write_case

SMALL = "cell=[5,5,5]"


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "supervoxels.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_case_is_cut_on_its_own_grid_and_its_numbers_are_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_case(tmp_path / "data", "BraTS19_A_1_1", codes="LPS")
    write_case(tmp_path / "data", "BraTS19_B_1_1", seed=1, label=False)
    assert main([f"data={tmp_path / 'data'}", f"output={tmp_path / 'out'}", SMALL]) == 0
    file = nib.load(tmp_path / "out" / "BraTS19_A_1_1_supervoxels.nii.gz")
    flair, truth = (nib.load(folder / f"BraTS19_A_1_1_{kind}.nii.gz") for kind in ("flair", "seg"))
    assert file.shape == flair.shape
    np.testing.assert_allclose(file.affine, flair.affine)
    found = np.asarray(file.dataobj)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found > 0, np.asarray(flair.dataobj) > 0)  # the brain and nothing else
    first, second = rows_of(tmp_path / "out")
    assert int(first["merged"]) == found.max() <= int(first["supervoxels"])
    expected = achievable_accuracy(found, np.asarray(truth.dataobj))
    assert float(first["achievable_merged"]) == pytest.approx(expected)
    assert (second["status"], second["achievable"]) == ("ok", "")  # without a label nobody knows
    assert "2/2 BraTS19_B_1_1:" in capsys.readouterr().out


def test_without_merging_both_numbers_are_the_same(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "BraTS19_A_1_1")
    assert main([f"data={tmp_path / 'data'}", f"output={tmp_path / 'out'}", SMALL, "merge=false"]) == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["supervoxels"] == row["merged"]


def test_a_bad_case_stops_no_other(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "data", "BraTS19_A_1_1")
    (folder / "BraTS19_A_1_1_t2.nii.gz").unlink()
    write_case(tmp_path / "data", "BraTS19_B_1_1", seed=1)
    assert main([f"data={tmp_path / 'data'}", f"output={tmp_path / 'out'}", SMALL]) == 1
    first, second = rows_of(tmp_path / "out")
    assert "missing modality t2" in first["status"]
    assert second["status"] == "ok"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("sell=3", "sell"),
        ("cell=[5,5]", "cell=[5, 5]: three sides"),
        ("gamma=0", "gamma=0.0: must be a positive number"),
        ("links=some", "choose inside or follow"),
        ("data=nowhere", "no such folder; data must name"),
    ],
)
def test_what_it_cannot_do_is_refused_by_key(
    argument: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"data={tmp_path}", f"output={tmp_path / 'out'}", argument]) == 2
    assert said in capsys.readouterr().err

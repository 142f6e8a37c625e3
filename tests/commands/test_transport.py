"""The command that maps cases to cubes: a data set of cubes, figures that add up, the way back, refusals by key."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.commands.transport.command import main
from fedbrats.data.finding import find_cases
from fedbrats.inference.cubes import read_map
from tests.commands.predict.small_cases import labels, write_case

CASE, OTHER = "BraTS19_A_1_1", "BraTS19_B_1_1"
SMALL = ("size=16", "steps=3")


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "transport.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_there_and_back_and_the_second_phase(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_case(tmp_path / "data", CASE, codes="LPS")
    write_case(tmp_path / "data", OTHER, seed=1, label=False)
    cubes, back, larger = tmp_path / "cubes", tmp_path / "back", tmp_path / "larger"
    assert main([f"data={tmp_path / 'data'}", f"output={cubes}", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "there and back loses WT" in said
    assert "of one core), cost" in said
    # The cubes are cases as any others, with the label of the case that has one.
    assert [(c.name, c.label is not None) for c in find_cases(cubes)] == [(CASE, True), (OTHER, False)]
    file = nib.load(cubes / CASE / f"{CASE}_seg.nii.gz")
    assert file.shape == (16, 16, 16)
    original = nib.load(folder / f"{CASE}_seg.nii.gz")
    own = np.asarray(original.dataobj)
    flair = labels(folder / f"{CASE}_flair.nii.gz")
    voxels = np.count_nonzero(flair) * abs(np.linalg.det(original.affine))
    assert abs(np.linalg.det(file.affine)) * 16**3 == pytest.approx(voxels)  # cubic millimetres

    # A perfect prediction in the cube comes back on the grid of the case, and loses what the table says.
    found = tmp_path / "found"
    found.mkdir()
    (found / f"{CASE}.nii.gz").write_bytes((cubes / CASE / f"{CASE}_seg.nii.gz").read_bytes())
    assert main([f"back={found}", f"maps={cubes}", f"output={back}"]) == 1  # OTHER was not predicted
    assert f"{OTHER}: failed" in capsys.readouterr().out
    returned = nib.load(back / f"{CASE}.nii.gz")
    np.testing.assert_allclose(returned.affine, original.affine)
    first, second = rows_of(cubes)
    lost = 1 - dice(np.asarray(returned.dataobj) > 0, own > 0)
    assert float(first["loss_WT"]) == pytest.approx(lost)
    assert lost < 0.1
    assert (second["status"], second["loss_WT"]) == ("ok", "")
    assert float(first["brain_share_WT"]) == pytest.approx((own > 0).sum() / np.count_nonzero(flair))
    assert float(first["cube_share_WT"]) == pytest.approx((np.asarray(file.dataobj) > 0).mean())

    # What came back is what the second phase enlarges; the case's own label is nearly the same.
    options = [f"data={tmp_path / 'data'}", f"output={larger}", "margin=0", *SMALL]
    assert main([*options, f"around={back}"]) == 1  # OTHER has none
    around = float(rows_of(larger)[0]["cube_share_WT"])
    assert main([*options, "around=labels"]) == 1
    first, second = rows_of(larger)
    assert float(first["cube_share_WT"]) > float(first["brain_share_WT"])
    assert around == pytest.approx(float(first["cube_share_WT"]), rel=0.1)
    assert "has no label; around=labels needs one" in second["status"]


def test_labels_of_another_grid_and_maps_that_are_none_are_refused(tmp_path: Path) -> None:
    write_case(tmp_path / "data", CASE)
    cubes = tmp_path / "cubes"
    assert main([f"data={tmp_path / 'data'}", f"output={cubes}", *SMALL, "steps=0"]) == 0
    seg = tmp_path / "data" / CASE / f"{CASE}_seg.nii.gz"
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / f"{CASE}.nii.gz").write_bytes(seg.read_bytes())
    assert main([f"back={tmp_path / 'found'}", f"maps={cubes}", f"output={tmp_path / 'back'}"]) == 1
    assert not (tmp_path / "back" / f"{CASE}.nii.gz").exists()
    # In the cube the labels are those of no case.
    in_cube = tmp_path / "in_cube"
    in_cube.mkdir()
    (in_cube / f"{CASE}.nii.gz").write_bytes((cubes / CASE / f"{CASE}_seg.nii.gz").read_bytes())
    out = f"output={tmp_path / 'larger'}"
    assert main([f"data={tmp_path / 'data'}", out, *SMALL, f"around={in_cube}"]) == 1
    assert "lies on another grid" in rows_of(tmp_path / "larger")[0]["status"]
    file = cubes / CASE / "map.npz"
    stored = dict(np.load(file))
    np.savez(file, **{**stored, "cell": stored["cell"] + 16**3})
    with pytest.raises(ValueError, match="cell does not fit a cube of 16"):
        read_map(file)
    file.write_bytes(b"no map")
    with pytest.raises(ValueError, match="no map of a case"):
        read_map(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sice=3"], "sice"),
        (["output=x"], "missing: data="),
        (["data=nowhere"], "no such folder; data must name"),
        (["data=x", "size=4"], "size=4: a cube of 8 to 256"),
        (["data=x", "exponent=nan"], "exponent=nan: a number from 0"),
        (["data=x", "steps=-1"], "steps=-1: a number from 0"),
        (["data=x", "margin=3"], "margin=3.0: around what?"),
        (["data=x", "around=labels", "margin=-1"], "margin=-1.0: must be"),
        (["data=x", "around=labels", "exponent=0"], "exponent=0: enlarges nothing"),
        (["data=x", "maps=y"], "maps=y: only the way back"),
        (["back=x"], "back: needs maps="),
        (["back=x", "maps=y", "size=96"], "size: the maps hold this"),
        (["data=.", "around=nowhere"], "around=nowhere: no such folder"),
        (["back=nowhere", "maps=y"], "back=nowhere: no such folder"),
        (["back=.", "maps=nowhere"], "maps=nowhere: no <case>/map.npz"),
    ],
)
def test_what_it_cannot_do_is_refused_by_key(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err

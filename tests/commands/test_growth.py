"""`fedbrats growth`: folders of volumes to a table and maps of agreement."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.commands.growth import TABLE, main
from fedbrats.data.nifti import read_volume

SHAPE = (12, 10, 8)
CENTRE = (5, 5, 4)
SPACING = (1.0, 1.0, 2.0)


def ball(radius: float, centre: tuple[int, ...] = CENTRE) -> np.ndarray:
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    return np.asarray(np.linalg.norm((places - centre) * SPACING, axis=-1) <= radius)


def write(folder: Path, name: str, volume: np.ndarray, affine: np.ndarray | None = None) -> None:
    folder.mkdir(exist_ok=True)
    usual = np.diag([*SPACING, 1.0])
    nib.save(nib.Nifti1Image(volume, usual if affine is None else affine), folder / f"{name}.nii.gz")


def distances(centre: tuple[int, ...]) -> np.ndarray:
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    return np.linalg.norm((places - centre) * SPACING, axis=-1).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A tumour that grows around its middle, and one that a prediction puts elsewhere."""
    for name, centre in (("right", CENTRE), ("wrong", (10, 1, 1))):
        write(tmp_path / "times", name, distances(centre))
        write(tmp_path / "before", name, ball(2).astype(np.uint8))
        write(tmp_path / "later", name, ball(4).astype(np.uint8))
    return tmp_path


def asked(folder: Path, *keys: str) -> list[str]:
    return [f"{key}={folder / key}" for key in ("times", "later", *keys)] + [f"output={folder / 'out'}"]


def test_growth_where_it_was_foretold_is_perfect_and_elsewhere_not(folders: Path) -> None:
    assert main(asked(folders, "before")) == 0
    right, wrong = TABLE.rows(folders / "out")
    assert (float(right["ap"]), float(right["ap_new"]), float(right["overlap_at_volume"])) == (1, 1, 1)
    assert float(wrong["ap"]) < 0.5
    assert float(wrong["ap_new"]) < 0.5
    assert float(right["ap_distance"]) == float(wrong["ap_distance"]) > 0.9
    assert int(right["tumour"]) == ball(4).sum()
    assert int(right["new"]) == (ball(4) & ~ball(2)).sum()
    seen, _ = read_volume(folders / "out" / "right_agreement.nii.gz")
    assert set(np.unique(seen[ball(4) & ~ball(2)])) == {100}
    assert set(np.unique(seen[ball(2)])) == {0}  # not looked at


def test_what_was_removed_and_what_is_no_brain_is_not_looked_at(folders: Path) -> None:
    half = np.zeros(SHAPE, np.uint8)
    half[:6] = 1
    gone = ball(1).astype(np.uint8)
    for name in ("right", "wrong"):
        write(folders / "brain", name, half)
        write(folders / "removed", name, gone)
    assert main(asked(folders, "brain", "removed")) == 0
    row = TABLE.rows(folders / "out")[0]
    assert int(row["tumour"]) == (ball(4) & (half > 0) & (gone == 0)).sum()
    assert row["ap_new"] == ""


def test_never_is_infinite_or_negative(folders: Path) -> None:
    times = distances(CENTRE)
    late = times > 4
    for name, never in (("right", np.inf), ("wrong", -1)):
        write(folders / "times", name, np.where(late, never, times).astype(np.float32))
    assert main(asked(folders)) == 0
    assert [float(row["ap"]) for row in TABLE.rows(folders / "out")] == [1, 1]


def test_a_case_that_cannot_be_scored_does_not_stop_the_others(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folders / "later", "right", ball(4).astype(np.uint8), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert main(asked(folders)) == 1
    right, wrong = TABLE.rows(folders / "out")
    assert "another grid" in right["status"]
    assert wrong["status"] == "ok"
    (folders / "later" / "wrong.nii.gz").unlink()
    assert main(asked(folders)) == 1
    assert "0 files of it in later" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["times=nowhere"], "missing: later=<folder>"),
        (["times=nowhere", "later=nowhere"], "no such folder"),
        (["times=.", "later=.", "max_voxels=0"], "max_voxels=0"),
        (["times=.", "later=.", "colour=red"], "colour"),
    ],
)
def test_what_cannot_be_used_is_named(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err

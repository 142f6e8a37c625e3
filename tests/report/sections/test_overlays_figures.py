"""Overlays: which cases are chosen, and how their slices are drawn."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedbrats.files import MAX_BYTES
from fedbrats.report.sections.overlays_figures import choose_overlays, overlay_figure, read_slice
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import RunFolder, read_run
from tests.report.fake_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "run", rounds=1))


def test_best_median_worst(run: RunFolder) -> None:
    chosen = choose_overlays(run)
    good = run.cases[(run.cases["arm"] == "federated") & (run.cases["status"] == "ok")]
    means = good.groupby("case")["dice"].mean().sort_values(ascending=False)
    assert [overlay.rank for overlay in chosen] == ["Best case", "Median case", "Worst case"]
    expected = [means.index[0], means.index[(len(means) - 1) // 2], means.index[-1]]
    assert [overlay.case for overlay in chosen] == expected


def test_overlay_is_in_radiological_view(run: RunFolder, tmp_path: Path) -> None:
    overlay = choose_overlays(run)[0]
    flair = np.zeros((20, 30), np.float16)
    flair[2:18, 3:27] = 1
    flair[16, 25] = 9  # high x = patient's right, high y = front
    labels = np.zeros((20, 30), np.uint8)
    path = tmp_path / "slice.npz"
    np.savez(path, flair=flair, t1ce=flair, truth=labels, prediction=labels, spacing=np.ones(3))
    figure = overlay_figure(type(overlay)("Best case", "A", "a", path, overlay.scores))
    picture = figure.axes[0].images[0].get_array()[..., 0]
    assert picture.shape == (24, 16)  # rows are y, cropped to the brain
    assert np.unravel_index(picture.argmax(), picture.shape) == (
        22,
        1,
    )  # near the top (origin below) on the left
    assert figure.axes[0].images[0].origin == "lower"


@pytest.mark.parametrize("broken", ["text", "lacks", "shape"])
def test_damaged_slice_is_named(tmp_path: Path, broken: str) -> None:
    path, square = tmp_path / "case.npz", np.zeros((4, 4))
    if broken == "text":
        path.write_text("no archive")
    elif broken == "lacks":
        np.savez(path, flair=square)
    else:
        np.savez(path, flair=square, t1ce=square, truth=np.zeros((3, 4)), prediction=square)
    with pytest.raises(RunFolderError, match=r"case\.npz"):
        read_slice(path)


def test_a_slice_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t1ce.npy", bytes(MAX_BYTES + 1))
    with pytest.raises(RunFolderError, match=rf"a\.npz: .*unpacks to more than {MAX_BYTES} bytes"):
        read_slice(tmp_path / "a.npz")

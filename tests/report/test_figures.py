"""Figures: what is drawn is what the files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedbrats.report.figures import cost_figure, curve_points, learning_curves, metric_boxes
from fedbrats.report.overlays import choose_overlays, overlay_figure, read_slice
from fedbrats.report.partition_figures import intensity_figure, partition_figure, partition_frame
from fedbrats.report.style import shorten
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import RunFolder, read_run
from tests.report.fake_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "run", rounds=8))


def test_curves_are_weighted_by_cases_and_skip_failed_replies() -> None:
    columns = ["round", "arm", "site", "phase", "status", "cases", "loss", "dice_wt", "dice_tc", "dice_et"]
    nothing = float("nan")
    rows = [
        (1, "federated", "A", "train", "ok", 30, 1.0, nothing, nothing, nothing),
        (1, "federated", "B", "train", "ok", 10, 2.0, nothing, nothing, nothing),
        (1, "federated", "C", "train", "failed: x", 500, 9.0, nothing, nothing, nothing),
        (1, "local:A", "A", "val", "ok", 1, 0.5, 0.2, 0.1, 0.0),
        (1, "local:B", "B", "val", "ok", 3, 0.5, 0.6, 0.1, 0.0),
    ]
    points = curve_points(pd.DataFrame(rows, columns=columns)).set_index(["arm", "phase"])
    assert points.loc[("federated", "train"), "loss"] == pytest.approx(1.25)  # (30 * 1 + 10 * 2) / 40
    local = points.loc[("local", "val")]
    assert (local["dice_wt"], local["dice_wt_min"], local["dice_wt_max"]) == (pytest.approx(0.5), 0.2, 0.6)


def test_failed_round_and_missing_reply_are_marked(run: RunFolder) -> None:
    figure = learning_curves(run)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"Federated", "Pooled", "Failed round", "Round with a failed reply"} <= set(labels)
    band = figure.axes[0].patches[0]
    assert band.get_x() < 7 < band.get_x() + band.get_width()


def test_boxes_hold_every_case(run: RunFolder) -> None:
    figure = metric_boxes(run, "hd95")
    drawn = sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == ".")
    arms = run.cases["arm"]
    own = (arms == "federated") | (arms == "pooled") | (arms == "local:" + run.cases["site"])
    assert drawn == int((own & (run.cases["region"] == "WT")).sum())
    assert "brats2023" in figure.axes[0].get_xlabel()
    assert "TCIA13 (unseen), n = 5" in [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_partition_counts(run: RunFolder) -> None:
    frame = partition_frame(run).set_index("site")
    assert frame.loc["CBICA", "cases"] == 30
    assert frame.loc["CBICA", ["train", "val", "test"]].tolist() == [18, 4, 8]
    assert frame.index[-1] == "TCIA13"
    figure = partition_figure(run)
    assert sum(patch.get_width() for patch in figure.axes[0].patches) == frame["cases"].sum()
    assert len(intensity_figure(run).axes) == 4
    assert len(cost_figure(run).axes) == 2


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


def test_long_names_stay_distinct() -> None:
    one, two = ("University Hospital of a Very Long Name, Neuroradiology " + end for end in "45")
    assert shorten(one) != shorten(two)
    assert len(shorten(one)) <= 26
    assert shorten("TCIA13") == "TCIA13"

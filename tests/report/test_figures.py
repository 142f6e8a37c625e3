"""Figures: what is drawn is what the files hold."""

from __future__ import annotations

import pandas as pd
import pytest

from fedbrats.report.cells import shorten
from fedbrats.report.figures import cost_figure, curve_points, learning_curves, metric_boxes
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


def test_cost(run: RunFolder) -> None:
    assert len(cost_figure(run).axes) == 2


def test_long_names_stay_distinct() -> None:
    one, two = ("University Hospital of a Very Long Name, Neuroradiology " + end for end in "45")
    assert shorten(one) != shorten(two)
    assert len(shorten(one)) <= 26
    assert shorten("TCIA13") == "TCIA13"

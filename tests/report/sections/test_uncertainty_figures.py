"""Uncertainty in the report: sums over sites, the Dice joined, who is listed first, figures and files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedbrats.report.html import write_report
from fedbrats.report.sections.uncertainty_figures import reliability_figure, retained_figure
from fedbrats.report.sections.uncertainty_tables import (
    calibration_error,
    curves,
    most_uncertain,
    number_rows,
    read_bins,
    read_doubts,
)
from fedbrats.runs.case_tables import KEYS, RELIABILITY, UNCERTAINTY, cases_table
from fedbrats.runs.reading import RunFolderError
from tests.report.fake_extras import write_uncertainty
from tests.report.fake_run import write_run
from tests.scored import SCORES


def write_doubts(folder: Path, scores: str = "cases.csv") -> Path:
    """Three federated cases, one of them without a score, and rows of another arm."""
    doubts = [
        ("federated", "A", "1", "WT", 0.2),
        ("federated", "A", "1", "ET", 0.9),
        ("federated", "B", "1", "WT", 0.5),
        ("federated", "B", "1", "ET", 0.1),
        ("federated", "B", "2", "WT", 0.3),
        ("pooled", "A", "1", "WT", 0.0),
    ]
    dice = [
        ("federated", "A", "1", "WT", 0.9),
        ("federated", "A", "1", "ET", 0.0),
        ("pooled", "A", "1", "WT", 0.1),
    ]
    dice += [("federated", "B", "1", "WT", 0.6), ("federated", "B", "1", "ET", 0.8)]
    UNCERTAINTY.write(folder, [dict(zip(UNCERTAINTY.columns, row, strict=True)) for row in doubts])
    cases_table(SCORES, scores).write(folder, [dict(zip((*KEYS, "dice"), row, strict=True)) for row in dice])
    return folder


def write_bins(folder: Path) -> Path:
    rows = [
        ("federated", "A", "WT", 0.0, 0.5, 30, 0.1, 0.2),
        ("federated", "B", "WT", 0.0, 0.5, 10, 0.3, 0.0),
        ("federated", "B", "WT", 0.5, 1.0, 10, 0.9, 0.7),
        ("pooled", "B", "WT", 0.5, 1.0, 999, 0.9, 0.7),
    ]
    RELIABILITY.write(folder, [dict(zip(RELIABILITY.columns, row, strict=True)) for row in rows])
    return folder


def test_bins_are_added_up_over_sites(tmp_path: Path) -> None:
    bins = read_bins(write_bins(tmp_path))
    assert list(bins) == ["WT"]
    assert bins["WT"]["voxels"].tolist() == [40, 10]
    assert bins["WT"]["mean_probability"].tolist() == pytest.approx([(30 * 0.1 + 10 * 0.3) / 40, 0.9])
    assert bins["WT"]["observed"].tolist() == pytest.approx([30 * 0.2 / 40, 0.7])
    # bin 1: 0.15 against 0.15, bin 2: 0.9 against 0.7
    assert calibration_error(bins["WT"]) == pytest.approx(0.2 * 10 / 50)


def test_dice_is_joined_by_case_and_region(tmp_path: Path) -> None:
    doubts = read_doubts(write_doubts(tmp_path), "cases.csv")
    assert set(doubts["arm"]) == {"federated"}
    by_case = doubts.set_index(["site", "case", "region"])["dice"]
    assert (by_case["A", "1", "WT"], by_case["A", "1", "ET"], by_case["B", "1", "WT"]) == (0.9, 0.0, 0.6)
    assert pd.isna(by_case["B", "2", "WT"])
    assert curves(doubts)["WT"]["mean_score"].tolist() == pytest.approx(
        [0.75, 0.9]
    )  # the unscored case is not in it


def test_first_for_review_is_the_case_with_the_most_uncertain_region(tmp_path: Path) -> None:
    rows = most_uncertain(read_doubts(write_doubts(tmp_path), "cases.csv"), listed=2)
    assert [(row["site"], row["case"], row["largest"]) for row in rows] == [
        ("A", "1", "0.900"),
        ("B", "1", "0.500"),
    ]
    assert rows[0]["uncertainty"] == ["0.200", "0.900"]
    assert rows[0]["score"] == ["0.900", "0.000"]
    everyone = most_uncertain(read_doubts(tmp_path, "cases.csv"))
    assert everyone[2]["score"] == ["-", "-"]  # not scored; no ET at all


def test_numbers_by_region(tmp_path: Path) -> None:
    write_bins(write_doubts(tmp_path))
    rows = number_rows(read_doubts(tmp_path, "cases.csv"), read_bins(tmp_path))
    assert [row["region"] for row in rows] == ["WT", "ET"]
    assert rows[0] == {
        **{
            "region": "WT",
            "n": "3",
            "uncertainty": "0.333",
            "missed": "0.250",
            "ece": "0.0400",
            "ratio": "1.00",
        }
    }
    assert (rows[1]["ece"], rows[1]["ratio"]) == ("-", "1.00")


def test_figures_draw_the_files(tmp_path: Path) -> None:
    write_bins(write_doubts(tmp_path))
    figure = reliability_figure(read_bins(tmp_path))
    assert figure.axes[0].lines[1].get_ydata() == pytest.approx([0.15, 0.7])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [40, 10]
    figure = retained_figure(read_doubts(tmp_path, "cases.csv"))
    assert len(figure.axes) == 2
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in figure.axes[1].lines}
    assert drawn["by uncertainty"] == pytest.approx([0.4, 0.8])
    assert drawn["blind choice"] == pytest.approx([0.4, 0.4])
    assert "gain 1.00" in figure.axes[1].get_title("left")


@pytest.mark.slow
def test_section_of_a_whole_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["CBICA", "TCIA01"], [32, 12], (), ("federated",), rounds=1)
    write_uncertainty(folder)

    def section() -> str:
        page = write_report(folder).read_text()
        return page[page.index('id="uncertainty"') : page.index('id="partition"')]

    seen = section()
    assert "Federated model." in seen
    assert seen.count("<img") == 2
    assert "The 10 most uncertain of 11 cases" in seen
    assert seen.index("BraTS19_CBICA_7_1") < seen.index("BraTS19_TCIA")  # the failed case has 1.0
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("engine: local", "engine: deployment"))
    hidden = section()
    assert "BraTS19_" not in hidden
    strip = re.compile(r'src="[^"]*"')
    assert strip.findall(hidden) == strip.findall(seen)  # the same figures, byte for byte


def test_local_models_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["A", "B"], [8, 8], (), ("local",), 1)
    write_uncertainty(folder)
    doubts = read_doubts(folder, "cases.csv")
    assert set(doubts["arm"]) == {"local:A", "local:B"}
    assert (doubts["arm"] == "local:" + doubts["site"]).all()  # each on its own cases
    assert "Local, own models." in write_report(folder).read_text()


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "uncertainty.csv").write_text("case,region\n")
    with pytest.raises(RunFolderError, match=r"uncertainty\.csv: columns missing: uncertainty"):
        read_doubts(tmp_path, "cases.csv")

"""A network that predicts the whole tumour alone: nothing about TC and ET is printed, drawn or missed."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedbrats.report.arms import merge_local_arms
from fedbrats.report.figures import learning_curves, metric_boxes
from fedbrats.report.html import write_report
from fedbrats.report.sections.overlays_figures import choose_overlays
from fedbrats.report.tables import institution_table
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.studies.compare import write_comparison
from fedbrats.studies.job_table import compare
from tests.report.fake_extras import write_postprocess, write_uncertainty
from tests.report.fake_run import write_run
from tests.scored import facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", rounds=4, regions=("WT",))


@pytest.fixture(scope="module")
def run(folder: Path) -> RunFolder:
    return read_run(folder)


def test_regions_are_those_of_the_files(folder: Path, run: RunFolder, tmp_path: Path) -> None:
    assert run.regions == ("WT",)
    assert run.missing == ()  # no case lacks a region
    copy = write_run(tmp_path / "run", rounds=2, regions=("WT",))
    (copy / "summary.json").unlink()
    assert set(institution_table(read_run(copy))["region"]) == {"WT"}  # computed from the cases
    (copy / "cases.csv").unlink()
    assert read_run(copy).regions == ("WT",)  # from the validation in rounds.csv
    (copy / "rounds.csv").unlink()
    assert read_run(copy).regions == ("WT", "TC", "ET")


def test_tables_and_terminal(run: RunFolder) -> None:
    table = institution_table(run)
    assert set(table["region"]) == {"WT"}
    console = Console(width=80, record=True, file=io.StringIO())
    print_result_table(run, console)
    text = console.export_text()
    assert "WT" in text
    assert not re.search(r"\bTC\b|\bET\b|nan", text)


def test_figures(run: RunFolder) -> None:
    assert [axis.get_title("left") for axis in learning_curves(run).axes][1:] == ["Validation Dice WT"]
    assert len(metric_boxes(run, "dice").axes) == 1
    chosen = choose_overlays(run)
    assert [overlay.rank for overlay in chosen] == ["Best case", "Median case", "Worst case"]
    assert chosen[0].scores.keys() == {"WT"}


@pytest.mark.slow
def test_report(folder: Path) -> None:
    write_postprocess(folder)
    write_uncertainty(folder)
    page = write_report(folder).read_text()
    seen = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))
    results = seen[: seen.index("Raw intensity of the non-zero voxels")]  # before the partition's table
    assert not re.search(r"\bnan\b", results)
    assert "reached a mean Dice of 0." in results
    assert not re.search(r"\bTC\b", results)
    assert "Best case" in seen
    assert "ET volume, mL" in seen  # the partition still tells what the truth holds


def test_failed_row_without_region_stands_for_the_regions_there_are(run: RunFolder) -> None:
    rows = run.cases[run.cases["arm"] == "federated"].head(2)
    rows = pd.concat([rows.head(1), rows.tail(1).assign(region="", status="failed: x")])
    assert merge_local_arms(rows, facts("brats2023"))["region"].tolist() == ["WT", "WT"]


def test_comparison_with_a_network_of_all_regions(tmp_path: Path) -> None:
    write_run(tmp_path / "0", rounds=1, arms=("federated",), regions=("WT",), seed=1, mu=0.5)
    write_run(tmp_path / "1", rounds=1, arms=("federated",), seed=1)
    table = compare(tmp_path)
    assert table[table["job"] == "0"]["region"].unique().tolist() == ["WT"]
    page = write_comparison(tmp_path)[1].read_text()
    assert "not every network predicts all of WT, TC, ET" in page
    first = re.search(r'<tr class="first">.*?</tr>', page, re.S)
    assert first is not None
    assert (
        re.sub(r"<small>.*?</small>", "", first.group()).count("<td>-</td>") == 4
    )  # TC and ET, Dice and HD95
    assert "nan" not in re.sub(r'<style>.*?</style>|src="data:[^"]*"', "", page, flags=re.S).lower()


def test_comparison_of_such_networks_alone(tmp_path: Path) -> None:
    for number, seed in enumerate((1, 2)):
        write_run(tmp_path / str(number), rounds=1, arms=("federated",), regions=("WT",), seed=seed)
    page = write_comparison(tmp_path)[1].read_text()
    assert "<th>WT</th>" in page
    assert "<th>TC</th>" not in page
    assert "over seeds (2)" in page

"""Tables against numbers worked out from the files by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.report.cells import Footnotes, mean_cell
from fedbrats.report.tables import (
    EVERY_SITE,
    cost_table,
    failures,
    institution_table,
    statistics,
    worst_institution,
)
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.run_folder import RunFolder, read_run
from tests.report.fake_run import UNSEEN, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", rounds=8)


@pytest.fixture(scope="module")
def run(folder: Path) -> RunFolder:
    return read_run(folder)


def row(table: pd.DataFrame, site: str, arm: str, region: str) -> pd.Series:
    found = table[(table["site"] == site) & (table["arm"] == arm) & (table["region"] == region)]
    assert len(found) == 1
    return found.iloc[0]


def test_means_are_those_of_the_cases(run: RunFolder) -> None:
    table = institution_table(run)
    part = run.cases[
        (run.cases["arm"] == "pooled") & (run.cases["site"] == "TCIA01") & (run.cases["region"] == "ET")
    ]
    found = row(table, "TCIA01", "pooled", "ET")
    assert found["dice"] == pytest.approx(part["dice"].mean())
    assert found["hd95"] == pytest.approx(part["hd95"].mean())
    assert found["n"] == len(part)
    whole = row(table, EVERY_SITE, "pooled", "ET")
    assert whole["dice_low"] <= whole["dice"] <= whole["dice_high"]


def test_summary_json_is_what_is_printed(folder: Path, tmp_path: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    summary["arms"]["federated"]["all"]["WT"]["dice"]["mean"] = 0.123
    summary["percent_of_pooled"]["federated"]["WT"] = 42.0
    copy = write_run(tmp_path / "run", rounds=2)
    (copy / "summary.json").write_text(json.dumps(summary))
    found = row(institution_table(read_run(copy)), EVERY_SITE, "federated", "WT")
    assert (found["dice"], found["percent_of_pooled"]) == (0.123, 42.0)


def test_without_summary_the_same_numbers_come_from_the_cases(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", rounds=2)
    with_summary = statistics(read_run(folder)).sort_values(
        ["arm", "site", "region", "metric"], ignore_index=True
    )
    (folder / "summary.json").unlink()
    without = statistics(read_run(folder)).sort_values(["arm", "site", "region", "metric"], ignore_index=True)
    columns = ["arm", "site", "region", "metric", "n", "failed", "mean", "std", "median", "q25", "q75"]
    pd.testing.assert_frame_equal(with_summary[columns], without[columns], check_dtype=False)


def test_every_missing_number_has_a_reason(run: RunFolder) -> None:
    table = institution_table(run)
    missing = table[["dice", "dice_low", "hd95", "hd95_low", "percent_of_pooled"]].isna().any(axis=1)
    assert missing.any()
    assert (table[missing]["note"] != "").all()
    assert (table[~missing]["note"] == "").all()
    unseen = row(table, UNSEEN, "local", "WT")
    assert unseen["unseen"]
    assert "no model of its own" in unseen["note"]
    assert "single test case" in row(table, "TMC", "federated", "WT")["note"]


def test_few_cases_are_shown_instead_of_an_interval(tmp_path: Path) -> None:
    """Of 2 to 5 cases no interval holds 95 %; the cell holds their scores and says why."""
    run = read_run(write_run(tmp_path / "run", rounds=2))
    table = institution_table(run)
    few = table[(table["site"] != EVERY_SITE) & (table["n"] > 1) & (table["n"] < MIN_CASES)]
    assert len(few)
    assert few[["dice_low", "dice_high", "hd95_low"]].isna().all(axis=None)
    first = few.to_dict(orient="records")[0]
    own = run.cases[(run.cases["site"] == first["site"]) & (run.cases["arm"] == first["arm"])]
    scores = sorted(own.loc[own["region"] == first["region"], "dice"])
    assert first["points"]["dice"] == scores
    notes = Footnotes()
    cell = mean_cell(first, "dice", notes, first["n"])
    assert cell.small == ", ".join(f"{score:.3f}" for score in scores)
    assert any("fewer than 6 test cases have no interval" in text for text in notes.texts)
    assert not any(table.loc[table["n"] >= MIN_CASES, "points"])


def test_intervals_of_another_kind_are_made_anew_from_the_cases(tmp_path: Path) -> None:
    """Older summaries hold percentile bootstraps, which cover less than they say."""
    folder = write_run(tmp_path / "run", rounds=2)
    new = statistics(read_run(folder))
    summary = json.loads((folder / "summary.json").read_text())
    del summary["intervals"]
    for regions in summary["arms"]["federated"].values():
        regions.get("WT", {}).get("dice", {}).update(ci_low=0.5, ci_high=0.5)
    (folder / "summary.json").write_text(json.dumps(summary))
    order = ["arm", "site", "region", "metric"]
    found = statistics(read_run(folder)).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(found, new.sort_values(order, ignore_index=True), check_dtype=False)
    (folder / "cases.csv").unlink()
    assert statistics(read_run(folder))["ci_low"].isna().all()


def test_worst_institution(run: RunFolder) -> None:
    table = institution_table(run)
    means = run.cases[(run.cases["arm"] == "pooled") & (run.cases["region"] == "TC")].groupby("site")
    worst = worst_institution(table, "pooled", "TC")
    assert worst is not None
    assert worst["site"] == means["dice"].mean().idxmin()
    worst = worst_institution(table, "pooled", "TC", "hd95")
    assert worst is not None
    assert worst["site"] == means["hd95"].mean().idxmax()
    assert worst_institution(table, "nothing", "TC") is None


def test_each_failure_once(run: RunFolder) -> None:
    found = failures(run)
    assert len(found) == 1 + 6 + 1  # round 4 one reply, round 7 all six and the round itself
    assert set(found[found["phase"] == "round"]["round"]) == {7}
    assert "non-finite values in down.0.weight" in set(found["reason"])


def test_costs(run: RunFolder) -> None:
    costs = cost_table(run).set_index("arm")
    assert list(costs.index) == ["federated", "pooled", "local"]
    # 8 rounds, 6 sites train and 6 validate; 4.7 MB down for each, 4.7 MB up for training
    assert costs.loc["federated", "mb_down"] == pytest.approx(8 * 12 * 4.7)
    assert costs.loc["federated", "mb_up"] == pytest.approx(8 * 6 * 4.7)
    assert costs.loc["federated", "mb_per_round"] == pytest.approx(18 * 4.7)
    assert costs.loc["federated", "seconds"] == pytest.approx(8 * 6 * (1.5 + 0.6))
    assert costs.loc["federated", "failed_rounds"] == 1
    assert costs.loc["local", "mb_per_round"] == 0


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_table_fits(run: RunFolder, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    print_result_table(run, console)
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "brats2023" in text
    assert "nan" not in text.lower()
    assert text.count("[") >= 24  # every mean has its interval
    table = institution_table(run)
    assert f"{row(table, EVERY_SITE, 'federated', 'WT')['dice']:.3f}" in text


def test_terminal_table_of_a_run_without_results(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", rounds=2)
    (folder / "summary.json").unlink()
    (folder / "cases.csv").unlink()
    console = Console(width=80, record=True, file=io.StringIO())
    print_result_table(folder, console)
    assert "No test case was scored" in console.export_text()

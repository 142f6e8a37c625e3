"""The floor in the tables: WT beside the arms, "-" with its reason for the rest, a sentence that names its region."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedbrats.commands.run.summary import arms_summary
from fedbrats.files import read_json, write_json
from fedbrats.report.conditions import without_truth
from fedbrats.report.html import write_report
from fedbrats.report.tables import institution_table
from fedbrats.report.terminal import print_result_table
from fedbrats.report.words import result_sentences
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.studies.compare import write_comparison
from fedbrats.studies.job_table import compare
from tests.report.fake_run import CONVENTION, write_run
from tests.scored import SCORES, facts

pytestmark = pytest.mark.usefixtures("undrawn")

TESTED = 9  # of 36 cases
REASON = "a threshold on FLAIR says nothing but WT"


def write_floor(folder: Path) -> Path:
    """A run with a floor that has half the Dice of the pooled arm on each of its cases."""
    write_run(folder, ["A", "B"], [24, 12], (), ("federated", "pooled"), rounds=2)
    cases = cases_table(SCORES).read(folder)
    own = cases[(cases["arm"] == "pooled") & (cases["region"] == "WT")]
    rows = [*cases.to_dict("records"), *own.assign(arm="floor", dice=own["dice"] / 2).to_dict("records")]
    cases_table(SCORES).write(folder, rows)
    summary = read_json(folder / "summary.json")
    write_json(folder / "summary.json", summary | arms_summary(rows, facts(CONVENTION), CONVENTION))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_floor(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def run(folder: Path) -> RunFolder:
    return read_run(folder)


def test_nothing_is_missing_because_the_floor_has_one_region(run: RunFolder) -> None:
    assert not [text for text in run.missing if "region" in text]
    assert set(run.cases[run.cases["arm"] == "floor"]["region"]) == {"WT"}


def test_the_table_has_wt_and_says_why_there_is_no_more(run: RunFolder) -> None:
    table = institution_table(run)
    whole = table[(table["site"] == "all") & (table["arm"] == "floor")].set_index("region")
    pooled = table[(table["site"] == "all") & (table["arm"] == "pooled")].set_index("region")
    assert whole.loc["WT", "n"] == pooled.loc["WT", "n"] == TESTED
    assert whole.loc["WT", "percent_of_pooled"] == pytest.approx(50)
    assert whole.loc["WT", "dice"] == pytest.approx(pooled.loc["WT", "dice"] / 2)
    for region in ("TC", "ET"):
        assert whole.loc[region, "n"] == 0
        assert pd.isna(whole.loc[region, "dice"])  # and not 0
        assert whole.loc[region, "note"] == REASON
    assert list(dict.fromkeys(table["arm"])) == ["federated", "pooled", "floor"]


def test_the_terminal_shows_it_beside_the_arms(run: RunFolder) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_result_table(run, console)
    lines = console.export_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("FLAIR threshold"))
    assert lines[start + 1].split()[:2] == ["WT", str(TESTED)]
    assert lines[start + 2].split() == ["TC", "0", "-", "-", "-", "-"]
    assert lines[start + 3].split() == ["ET", "0", "-", "-", "-", "-"]
    assert f"- = {REASON}" in " ".join(lines)


def test_the_sentence_names_its_region(run: RunFolder) -> None:
    said = [s for s in result_sentences(run, institution_table(run), without_truth(run)) if "FLAIR" in s]
    mean = run.cases[run.cases["arm"] == "floor"]["dice"].mean()
    assert said == [
        f"A threshold on FLAIR, without any training, reached a mean Dice of {mean:.3f} for whole tumour on {TESTED} "
        "test cases, 50.0 % of the pooled model on the cases of both, which had 40 steps in a row."
    ]


def test_report_and_comparison_show_it(folder: Path) -> None:
    assert "FLAIR threshold" in write_report(folder).read_text()
    table = compare(folder.parent)
    row = table[(table["arm"] == "floor") & (table["site"] == "all") & (table["region"] == "WT")].iloc[0]
    assert row["percent_of_pooled"] == pytest.approx(50)
    *_, page = write_comparison(folder.parent)
    assert "FLAIR threshold" in page.read_text()
    methods = pd.read_csv(folder.parent / "compare" / "methods.csv")
    assert set(methods[methods["arm"] == "floor"]["region"]) == {"WT"}
    tests = pd.read_csv(folder.parent / "compare" / "tests.csv")
    assert (
        not tests["method"].str.contains("FLAIR").any()
    )  # no method: Holm's correction counts those that are

"""Sites that keep the results of single cases are in both reports and on the terminal with what they tell."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fedbrats.metrics.aggregates import aggregates
from fedbrats.report.aggregates import told_by_sites
from fedbrats.report.html import write_report
from fedbrats.report.public import write_public_report
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.case_tables import AGGREGATES, write_table
from fedbrats.runs.run_folder import read_run
from tests.report.fake_run import write_run
from tests.scored import SCORES

pytestmark = pytest.mark.usefixtures("undrawn")

Scores = dict[str, list[float]]


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Scores]:
    """A run of which no case is known, and by site the Dice of the whole tumour of every case."""
    made = tmp_path / "run"
    write_run(made, ["Large", "Few"], [40, 8], [], ("federated",), rounds=2)
    cases = pd.read_csv(made / "cases.csv", keep_default_na=False)
    rows: list[dict[str, Any]] = cases.to_dict("records")
    told = []
    for site in ("Large", "Few"):
        summed = aggregates([row for row in rows if row["site"] == site], SCORES, 1)
        told += [{"arm": "federated", "site": site, "order": None, "step": "", **row} for row in summed]
    step = {**told[0], "order": 0, "step": "raw", "mean": 0.123456}
    write_table(made, AGGREGATES, [*told, step])
    (made / "cases.csv").write_text(",".join(cases.columns) + "\n")
    (made / "withheld.json").write_text(json.dumps({"Few": ["policy.least_cases=5: <b>few</b> cases: val"]}))
    found: Scores = {}
    for row in rows:
        if row["region"] == "WT":
            found.setdefault(row["site"], []).append(row["dice"])
    return made, found


def test_the_mean_of_all_sites_is_that_of_all_their_cases(folder: tuple[Path, Scores]) -> None:
    (table,) = told_by_sites(read_run(folder[0]), public=False)
    every = [value for values in folder[1].values() for value in values]
    first = table["rows"][0]
    assert not [cell for row in table["rows"] for cell in row["cells"] if "0.123" in cell]  # of a step
    assert [row["site"] for row in table["rows"]] == ["all sites", "Few", "Large"]
    assert first["n"] == len(every)
    assert first["cells"][0] == f"{statistics.mean(every):.3f} ± {statistics.stdev(every):.3f}"


def test_the_report_has_them_and_what_sites_keep(folder: tuple[Path, Scores]) -> None:
    text = write_report(folder[0]).read_text()
    assert f"{statistics.mean(folder[1]['Large']):.3f} ± " in text
    assert "policy.least_cases=5: &lt;b&gt;few&lt;/b&gt; cases: val" in text
    assert "There are no test results" not in text
    assert "All sites are here" in text


def test_the_report_to_hand_out_has_no_site_with_few_cases(folder: tuple[Path, Scores]) -> None:
    text = write_public_report(folder[0]).read_text()
    large, few = folder[1]["Large"], folder[1]["Few"]
    assert (len(large), len(few)) == (10, 2)
    assert text.count(f"{statistics.mean(large):.3f} ± ") == 2  # of the site, and of all sites that are shown
    assert f"{statistics.mean(few):.3f} ±" not in text
    assert f"{statistics.mean([*large, *few]):.3f} ±" not in text
    assert "policy.least_cases" not in text
    assert "All sites are here" not in text
    assert "Sites with fewer than 6 test cases are left out, of the mean of all sites too" in text


def test_the_terminal_prints_them(folder: tuple[Path, Scores]) -> None:
    out = Console(file=io.StringIO(), width=100)
    print_result_table(folder[0], out)
    assert isinstance(out.file, io.StringIO)
    assert f"{statistics.mean(folder[1]['Large']):.3f} ± " in out.file.getvalue()


def test_a_run_in_which_nobody_keeps_anything_has_no_such_section(tmp_path: Path) -> None:
    write_run(tmp_path / "run", ["Large"], [40], [], ("federated",), rounds=2)
    assert "Sites that keep the results" not in write_report(tmp_path / "run").read_text()

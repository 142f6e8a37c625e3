"""A run folder of a classification across hospitals: sites that keep their cases, and the report of what they tell."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fedbrats.files import write_json
from fedbrats.report.html import write_report
from fedbrats.report.public import write_public_report
from fedbrats.report.terminal import print_result_table
from fedbrats.runs import rounds
from fedbrats.runs.case_tables import WITHHELD
from fedbrats.runs.classified import AGGREGATES, read_institutions, write_scores
from fedbrats.runs.run_folder import read_run
from fedbrats.studies.classified.answer import write_classified
from fedbrats.studies.jobs import read_job
from fedbrats.tasks.told import told_scores

KEPT = "policy.per_case=false: aggregates in place of results of single cases"


def rows(site: str, count: int) -> list[dict]:
    return [
        {
            "arm": "federated",
            "site": site,
            "case": f"{site}#{i:04d}",
            "score": (i * 7 % 10) / 10,
            "label": i % 2,
        }
        | {"status": "ok"}
        for i in range(count)
    ]


def study(folder: Path, own: dict[str, int], telling: dict[str, int]) -> Path:
    """What a server has at the end: sites of `own` cases that keep them, and those that tell theirs."""
    folder.mkdir(parents=True)
    config = {"task": {"name": "classification"}, "arms": ["federated"], "rounds": 1}
    config |= {
        "runtime": {"engine": "superlink"},
        "strategy": {"_target_": "fedbrats.algorithms.fedavg.FedAvg"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    sites = [
        {"name": s, "holdout": False, "train": [], "val": [], "test": [r["case"] for r in rows(s, n)]}
        for s, n in {**own, **telling}.items()
    ]
    write_json(folder / "partition.json", {"sites": sites})
    rounds.CLASSIFIED.write(folder, [])
    told = [
        {"arm": "federated", "site": s, **row} for s, n in own.items() for row in told_scores(rows(s, n), 5)
    ]
    AGGREGATES.write(folder, told)
    write_json(folder / WITHHELD, {site: [KEPT] for site in own})
    facts = write_scores(folder, [row for s, n in telling.items() for row in rows(s, n)])
    write_json(folder / "summary.json", {"status": "finished", "wall_seconds": 1.0, **facts})
    return folder


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("home") / "glioma", {"Bonn": 12, "Oslo": 9}, {})


def test_without_a_row_of_a_case_institutions_have_what_they_told(at_home: Path) -> None:
    with (at_home / "cases.csv").open(newline="") as handle:
        assert list(csv.DictReader(handle)) == []
    table = read_institutions(at_home).set_index("site")
    assert table.loc[["all", "Bonn", "Oslo"], "n"].tolist() == [21, 12, 9]
    assert 0 < table.loc["Bonn", "auc"] < 1
    assert math.isnan(table.loc["Oslo", "auc"])  # 4 of its cases have the label 1
    assert "auc, sensitivity, specificity, p_chance, positives stay at the site" in table.loc["Oslo", "kept"]
    assert math.isnan(table.loc["all", "auc"])
    assert table.loc["all", "brier"] == pytest.approx(
        (12 * table.loc["Bonn", "brier"] + 9 * table.loc["Oslo", "brier"]) / 21
    )
    run = read_run(at_home)
    assert (run.sites, len(run.cases)) == (["Bonn", "Oslo"], 0)
    said = run.summary["classification"]["federated"]
    assert said["verdict"].startswith(
        "No AUC of all test cases: auc, calibration_error, p_chance cannot be put"
    )
    assert said["all"]["auc"] is None
    assert "institutions.csv has what they tell instead" in " ".join(run.missing)


def test_the_report_says_it_and_what_stays_and_draws_no_curve_of_a_part(at_home: Path) -> None:
    inside = write_report(at_home).read_text()
    assert "cannot be put together from those of institutions, and single cases stay at Bonn, Oslo" in inside
    assert KEPT in inside
    assert "ROC curves" not in inside
    outside = write_public_report(at_home).read_text()
    assert "cannot be put together" in outside
    assert KEPT not in outside  # a site's own words
    console = Console(width=200, record=True, file=io.StringIO())
    print_result_table(at_home, console)
    text = console.export_text()
    assert "No AUC of all test cases" in text
    assert "  Oslo, 9 test cases: AUC -" in text


def test_others_that_tell_their_cases_are_beside_them(tmp_path: Path) -> None:
    folder = study(tmp_path / "mixed", {"Bonn": 12}, {"Oslo": 9})
    table = read_institutions(folder).set_index("site")
    assert table["kept"].ne("").tolist() == [True, True, False]
    assert not math.isnan(table.loc["Oslo", "auc_low"])
    assert table.loc["all", "positives"] == 10
    assert not math.isnan(table.loc["all", "sensitivity"])
    assert "ROC curves" not in write_report(folder).read_text()


def test_a_comparison_says_that_no_case_is_known(at_home: Path) -> None:
    job = read_job(at_home, at_home.parent)
    assert (job.status, len(job.scores)) == ("finished", 0)
    answer = write_classified(at_home.parent, [job])
    assert (answer["chance"], answer["left"]) == ([], ["FedAvg: no site has told the score of a case"])

"""Run folders of other versions stay readable: an older one that is kept here, ones with more and with fewer columns.

`written_by_1cb55be` is what a run of that commit left, its arrays, slices and report taken away: three institutions
and an unseen one, two rounds, all arms, post-processing and uncertainty.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedbrats.config.schema import load_config
from fedbrats.report.html import write_report
from fedbrats.report.tables import institution_table, statistics
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.run_folder import read_run
from fedbrats.studies.compare import write_comparison
from fedbrats.studies.job_table import compare
from tests.scored import SCORES

pytestmark = pytest.mark.usefixtures("undrawn")

KEPT = Path(__file__).parent / "written_by_1cb55be"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "sweep" / "old"))


def change_cases(folder: Path, change) -> None:
    cases = pd.read_csv(folder / "cases.csv", dtype=str, keep_default_na=False)
    change(cases).to_csv(folder / "cases.csv", index=False)


def test_it_has_no_schema_version_and_lacks_nothing(folder: Path) -> None:
    assert "schema_version" not in json.loads((folder / "environment.json").read_text())
    run = read_run(folder)
    assert run.missing == ()
    assert tuple(run.metrics) == SCORES
    assert run.finished


@pytest.mark.parametrize(("number", "labels"), [("null", "auto"), ("3", "gli2023"), ("4", "brats2021")])
def test_its_configuration_is_read(folder: Path, number: str, labels: str) -> None:
    """Its `data.et_label` gave way to `data.labels`."""
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("et_label: null", f"et_label: {number}"))
    assert load_config(file).data.labels == labels


def test_its_report_and_comparison_say_what_its_summary_says(folder: Path) -> None:
    known = json.loads((folder / "summary.json").read_text())["arms"]["pooled"]["all"]["WT"]
    table = institution_table(read_run(folder))
    row = table[(table["site"] == "all") & (table["arm"] == "pooled") & (table["region"] == "WT")].iloc[0]
    assert (row["dice"], row["hd95"]) == (known["dice"]["mean"], known["hd95"]["mean"])
    page = write_report(folder).read_text()
    for part in ('id="postprocess"', 'id="uncertainty"', f"{known['dice']['mean']:.3f}"):
        assert part in page
    output = io.StringIO()
    print_result_table(read_run(folder), Console(file=output, width=100))
    assert f"{known['dice']['mean']:.3f}" in output.getvalue()
    rows = compare(folder.parent)
    row = rows[(rows["arm"] == "pooled") & (rows["site"] == "all") & (rows["region"] == "WT")].iloc[0]
    assert (row["dice_mean"], row["hd95_mean"]) == (known["dice"]["mean"], known["hd95"]["mean"])
    write_comparison(folder.parent)


def test_a_column_it_does_not_know_is_taken(folder: Path) -> None:
    """As a later version with one more metric would write it."""
    change_cases(folder, lambda cases: cases.assign(nsd="0.25"))
    summary = json.loads((folder / "summary.json").read_text())
    for arm in summary["arms"].values():
        for scores in arm["all"].values():
            scores["nsd"] = {**scores["dice"], "mean": 0.25}
    (folder / "summary.json").write_text(json.dumps(summary))
    run = read_run(folder)
    assert run.missing == ()
    assert set(statistics(run)["metric"]) == {*SCORES, "nsd"}
    assert ">nsd<" in write_report(folder).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("summed", [True, False])
def test_a_column_it_knows_may_be_missing(folder: Path, summed: bool) -> None:
    """As a version before the lesion-wise scores and without a distance would have written it."""
    gone = ["hd95", "lesion_dice", "lesion_hd95"]
    change_cases(folder, lambda cases: cases.drop(columns=gone))
    summary = json.loads((folder / "summary.json").read_text())
    for arm in summary["arms"].values():
        for scores in [*arm["all"].values(), *(v for site in arm["sites"].values() for v in site.values())]:
            for metric in gone:
                del scores[metric]
    if not summed:
        del summary["arms"]
    (folder / "summary.json").write_text(json.dumps(summary))
    run = read_run(folder)
    assert set(run.metrics) == set(SCORES) - set(gone)
    assert set(statistics(run)["metric"]) == set(SCORES) - set(gone)
    assert "HD95" in write_report(folder).read_text()
    print_result_table(run, Console(file=io.StringIO(), width=100))
    write_comparison(folder.parent)


def test_a_newer_form_is_said(folder: Path) -> None:
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**environment, "schema_version": 99}))
    (said,) = read_run(folder).missing
    assert "A newer fedbrats wrote this folder (schema 99" in said
